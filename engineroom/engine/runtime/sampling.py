"""Sample the next token of every request of a step from the logits, on the engine's device.

The noise of a draw is a function of (seed, position, token id) alone. The output of a request therefore does not depend
on which other requests are in the batch, nor on whether it was preempted and computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from engineroom.engine.runtime.grammar import Grammar
from engineroom.kit.errors import UserError

MAX_LOGIT_BIAS = 100  # OpenAI's limit


class SamplingError(UserError, ValueError):
    """A sampling parameter is out of its range; the message begins with the parameter's name."""


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen. The names are those of TensorRT-LLM's SamplingParams.

    `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 mean no limit. `end_id` and each of `stop_words`,
    sequences of token ids, end the output; those of one token are impossible before `min_tokens` tokens.

    `logprobs`: None, or how many of the likeliest tokens are returned with their log-probabilities, beside the chosen
    token's. `prompt_logprobs`: the same for each token of the prompt.

    `presence_penalty` and `frequency_penalty` reduce the logits of tokens in the output so far, once and once for each
    time; logits of tokens in prompt or output are divided by `repetition_penalty` (multiplied if negative), as in vLLM.
    `logit_bias`, vLLM's name: pairs of a token id and what is added to its logit. `grammar`: the only texts that the
    output may be.

    Penalties and a grammar need the last token on the host. A step with such a request waits until the tokens of the
    step before it were read, but only after its own computation was launched, so a GPU has work meanwhile. A request
    with `prompt_logprobs` computes a context of at most max_batch_size tokens a step, without cached blocks, and the
    host waits for each of these steps.

    Raises SamplingError for a value out of its range.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    end_id: int | None = None
    stop_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        ranges = {
            "max_tokens": (self.max_tokens >= 1, "from 1 up"),
            "temperature": (self.temperature >= 0, "from 0 up"),
            "top_k": (self.top_k >= 0, "from 0 up, 0 for all"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "seed": (self.seed is None or -(2**63) <= self.seed < 2**63, "of 64 bits"),
            "min_tokens": (
                0 <= self.min_tokens <= self.max_tokens,
                f"from 0 to max_tokens, {self.max_tokens}",
            ),
            "logprobs": (self.logprobs is None or self.logprobs >= 0, "from 0 up"),
            "prompt_logprobs": (self.prompt_logprobs is None or self.prompt_logprobs >= 0, "from 0 up"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "from -2 to 2"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0"),
        }
        for name, (is_valid, expected) in ranges.items():
            if not is_valid:
                raise SamplingError(f"{name} is {getattr(self, name)}; expected a number {expected}.")
        for token_id, bias in self.logit_bias:
            if not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS:
                raise SamplingError(
                    f"logit_bias is {bias} for token {token_id}; expected a number from -100 to 100."
                )
        if self.grammar and self.min_tokens:
            raise SamplingError(
                f"min_tokens is {self.min_tokens}, but the grammar of the output decides when it may end; "
                "expected one of the two."
            )

    @cached_property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1

    @cached_property
    def has_penalties(self) -> bool:
        penalties = (self.presence_penalty, self.frequency_penalty, self.repetition_penalty)
        return penalties != (0, 0, 1)

    @cached_property
    def reads_output(self) -> bool:
        """Whether the host must know all tokens of the output before it can choose the next one."""
        return self.has_penalties or self.grammar is not None

    @cached_property
    def changes_logits(self) -> bool:
        """Whether the greedy token may be another one than that with the model's largest logit."""
        return self.reads_output or bool(self.logit_bias) or self.min_tokens > 0

    @cached_property
    def end_token_ids(self) -> list[int]:
        """The tokens that end the output by themselves."""
        end_ids = [] if self.end_id is None else [self.end_id]
        return end_ids + [stop_word[0] for stop_word in self.stop_words if len(stop_word) == 1]


def sample(
    logits: Tensor,
    greedy_token_ids: Tensor,
    params: Sequence[SamplingParams],
    seeds: Sequence[int],
    positions: Sequence[int],
) -> Tensor:
    """One token id for each request, int64 [num_requests], on the device of `logits`.

    logits: float32 [num_requests, vocab_size]. greedy_token_ids: int64 [num_requests], the argmax of each row, which is
    the result for a greedy request. positions: each new token's position in its sequence, from 0.
    """
    token_ids = greedy_token_ids.clone()
    rows = [row for row, request_params in enumerate(params) if not request_params.greedy]
    if not rows:
        return token_ids
    row_params = [params[row] for row in rows]
    row_indices = torch.tensor(rows, device=logits.device)  # [num_rows]
    keys = torch.tensor([[seeds[row], positions[row]] for row in rows], device=logits.device)  # [num_rows, 2]
    temperatures = _column([row_param.temperature for row_param in row_params], logits)  # [num_rows, 1]
    scores = apply_min_p(logits[row_indices] / temperatures, row_params)  # [num_rows, vocab_size]
    scores = apply_top_k_top_p(scores, row_params)
    token_ids[row_indices] = (scores + gumbel_noise(keys, logits.shape[1])).argmax(-1)
    return token_ids


def apply_min_p(scores: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """`scores`, float32 [num_requests, vocab_size], with minus infinity for improbable tokens.

    These are tokens whose probability is less than `min_p` times that of the likeliest token.
    """
    if all(request_params.min_p == 0 for request_params in params):
        return scores
    min_p = _column([request_params.min_p for request_params in params], scores)  # [num_requests, 1]
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) + min_p.log(), -torch.inf)


def apply_top_k_top_p(scores: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """`scores`, float32 [num_requests, vocab_size], with minus infinity for tokens beyond top-k, then beyond top-p.

    The token whose probability crosses the limit of top-p is kept.
    """
    if all(request_params.top_k == 0 and request_params.top_p == 1 for request_params in params):
        return scores
    vocab_size = scores.shape[1]
    top_k = _column(
        [request_params.top_k or vocab_size for request_params in params], scores
    )  # [num_requests, 1]
    top_p = _column([request_params.top_p for request_params in params], scores)  # [num_requests, 1]
    sorted_scores = scores.sort(descending=True).values
    ranks = torch.arange(vocab_size, device=scores.device)  # [vocab_size]
    probabilities = sorted_scores.masked_fill(ranks >= top_k, -torch.inf).softmax(-1)
    is_kept = (probabilities > 0) & (probabilities.cumsum(-1) - probabilities < top_p)
    last_kept = is_kept.sum(-1, keepdim=True).clamp(min=1) - 1  # [num_requests, 1]
    return scores.masked_fill(scores < sorted_scores.gather(1, last_kept), -torch.inf)


def gumbel_noise(keys: Tensor, vocab_size: int) -> Tensor:
    """Gumbel noise, float32 [num_requests, vocab_size], from `keys`, int64 [num_requests, 2]: seed and position.

    The token with the largest sum of log-probability and Gumbel noise is a draw from the distribution (Gumbel-max).
    """
    token_ids = torch.arange(vocab_size, device=keys.device)
    counters = splitmix64(splitmix64(keys[:, :1]) + keys[:, 1:]) + token_ids  # [num_requests, vocab_size]
    uniform = ((splitmix64(counters) & (2**40 - 1)).double() + 0.5) / 2**40
    return -torch.log(-torch.log(uniform)).float()


def splitmix64(x: Tensor) -> Tensor:
    """One step of the generator SplitMix64, in int64 that wraps around; each value of `x` is a state of its own.

    Steele et al., "Fast splittable pseudorandom number generators", 2014. The masks turn the arithmetic right shifts of
    int64 into logical ones; the constants are those of the paper, as signed numbers.
    """
    x = x - 0x61C8864680B583EB  # + 0x9E3779B97F4A7C15
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & (2**33 - 1))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """float32 [len(values), 1] on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
