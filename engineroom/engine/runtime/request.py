"""A request: its prompt, the tokens generated so far, and what the runtime holds for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from secrets import randbits
from typing import Literal, NamedTuple

from engineroom.engine.model import PLACEHOLDER_TOKEN_ID
from engineroom.engine.runtime.grammar import GrammarState
from engineroom.engine.runtime.kv_cache import BlockTable
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.errors import UserError

FinishReason = Literal["stop", "length"]


class RequestError(UserError, ValueError):
    """The request is invalid or exceeds a limit of the engine; the message names the parameter or the limit."""


class ContextLengthError(RequestError):
    """The prompt, or prompt and output together, would be longer than the engine allows."""


@dataclass(frozen=True)
class RequestMetrics:
    """How a request started; TensorRT-LLM's RequestPerfMetrics has the same figures.

    The times are in seconds of time.perf_counter. The blocks are those that hold the prompt in the KV cache:
    `num_reused_blocks` had its content already, `num_allocated_blocks` did not. Of the latter, `num_new_blocks` were
    empty; for the others, the cached content of earlier requests was evicted.
    """

    arrival_time: float
    first_scheduled_time: float
    num_cached_tokens: int = 0
    num_reused_blocks: int = 0
    num_allocated_blocks: int = 0
    num_new_blocks: int = 0


class TokenLogprob(NamedTuple):
    """The log-probability of a token, and (token id, log-probability) of the likeliest tokens in its place."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenOutput:
    """One generated token. The last token of a request has a `finish_reason`.

    `top_logprobs`: (token id, log-probability) of as many of the likeliest tokens as the request asked for. The first
    token of a request has its `prompt_logprobs`, those of the prompt's second token up to the last.
    `error`: why the request ended with this token although its output is not complete.

    `read_time`: when the host read the token, in seconds of time.perf_counter; 0 where it is not known. `metrics`:
    `AsyncExecutor` sets it on the first token of a request.
    """

    token_id: int
    logprob: float
    finish_reason: FinishReason | None = None
    read_time: float = 0.0
    metrics: RequestMetrics | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    error: RequestError | None = None

    @property
    def queue_seconds(self) -> float | None:
        """How long the request waited for its first step; None except on the first token."""
        return self.metrics and self.metrics.first_scheduled_time - self.metrics.arrival_time

    @property
    def num_cached_tokens(self) -> int:
        """How many tokens of the prompt were found in the KV cache; 0 except on the first token."""
        return self.metrics.num_cached_tokens if self.metrics else 0


@dataclass(eq=False)
class Request:
    """One sequence that the engine serves; nano-vllm calls it Sequence.

    - `token_ids`: the prompt, then the output. The last `num_placeholders` of them are PLACEHOLDER_TOKEN_ID: steps that
      compute these tokens were launched, and the host has not read their results yet.
    - `num_computed_tokens`: how many tokens, from the first on, have their keys and values in the KV cache.
    - `slot`: the request's row in the model runner's device tables while it runs; None while it waits.
    - `num_cached_tokens`: tokens of the prompt that the KV cache had when the request first started.
    - `context_blocks`: reused, allocated and new blocks (see RequestMetrics) once the context is computed.
    - `prompt_logprobs`: as far as they are computed. `grammar_state`: where the known tokens of the output have led.
    - `num_preemptions`: how often the request lost its blocks and had to be computed again.
    - `arrival_time`, `first_scheduled_time`: in seconds of time.perf_counter; the second is None until the first step.
    """

    token_ids: list[int]
    params: SamplingParams
    num_prompt_tokens: int = field(init=False)
    num_computed_tokens: int = 0
    num_placeholders: int = 0
    num_cached_tokens: int = 0
    context_blocks: tuple[int, int, int] = (0, 0, 0)
    num_preemptions: int = 0
    slot: int | None = None
    block_table: BlockTable = field(default_factory=BlockTable)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    grammar_state: GrammarState | None = field(init=False)
    seed: int = field(init=False)
    cancelled: bool = False
    finished: bool = False
    arrival_time: float = field(default_factory=time.perf_counter)
    first_scheduled_time: float | None = None

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)
        grammar = self.params.grammar
        self.grammar_state = grammar and grammar.new_state()
        self.seed = randbits(63) if self.params.seed is None else self.params.seed

    @property
    def metrics(self) -> RequestMetrics | None:
        """None before the first step."""
        if self.first_scheduled_time is None:
            return None
        times = self.arrival_time, self.first_scheduled_time
        return RequestMetrics(*times, self.num_cached_tokens, *self.context_blocks)

    @property
    def is_running(self) -> bool:
        return self.slot is not None

    @property
    def max_total_tokens(self) -> int:
        """The most tokens that prompt and output can have together."""
        return self.num_prompt_tokens + self.params.max_tokens

    @property
    def num_known_tokens(self) -> int:
        """Tokens that the host has read."""
        return len(self.token_ids) - self.num_placeholders

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def is_fully_scheduled(self) -> bool:
        """Whether a step that computes the last token was launched; the host may not have read its result yet."""
        return len(self.token_ids) == self.max_total_tokens

    @property
    def is_generating(self) -> bool:
        """Whether the next step computes one token of the output; otherwise it computes context."""
        prompt_is_computed = self.num_computed_tokens >= self.num_prompt_tokens
        return prompt_is_computed and len(self.token_ids) - self.num_computed_tokens == 1

    @property
    def needs_prompt_logits(self) -> bool:
        """Whether the next steps compute the logits of each token of the prompt, not of the last one only."""
        num_logprobs = self.num_prompt_tokens - 1  # no logits are before the first token
        return self.params.prompt_logprobs is not None and len(self.prompt_logprobs) < num_logprobs

    def append_placeholder(self) -> None:
        """Append a placeholder for a token whose computation was launched."""
        self.token_ids.append(PLACEHOLDER_TOKEN_ID)
        self.num_placeholders += 1

    def resolve_placeholder(self, token_id: int) -> FinishReason | None:
        """Replace the first placeholder with the token that the host has read.

        Returns the finish reason, or None if the output goes on. A request that ends drops its other placeholders.
        """
        self.token_ids[self.num_known_tokens] = token_id
        self.num_placeholders -= 1
        if self.grammar_state:
            self.grammar_state.advance(token_id)
        reason = self._finish_reason()
        if reason:
            del self.token_ids[self.num_known_tokens :]
            self.num_placeholders = 0
        return reason

    def _finish_reason(self) -> FinishReason | None:
        end = self.num_known_tokens
        for stop_word in [(self.params.end_id,), *self.params.stop_words]:
            begin = end - len(stop_word)
            if begin >= self.num_prompt_tokens and tuple(self.token_ids[begin:end]) == stop_word:
                return "stop"
        return "length" if end == self.max_total_tokens else None
