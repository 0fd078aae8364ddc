"""Requests: OpenAI's completions and chat completions, as far as this server supports them.

Field names, defaults and the form of errors follow OpenAI's API reference; `ignore_eos`, `top_k`, `min_p`,
`repetition_penalty`, `min_tokens`, `stop_token_ids` and `continuous_usage_stats` are vLLM's additions. Unknown fields
are ignored, as other servers do. A known field that would change the output and is not supported is refused, unless it
has the one value that changes nothing (see unsupported.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from engineroom.engine.runtime.grammar import Grammar
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.fields import (
    Bias,
    FieldError,
    Flag,
    MaxTokens,
    NonEmptyText,
    OnlyEmptyList,
    OnlyOneChoice,
    Penalty,
    StrictModel,
    TokenIds,
    TopLogprobs,
)
from engineroom.openai.lenient import INTEGER, NUMBER
from engineroom.openai.messages import ChatMessage
from engineroom.openai.response_format import ResponseFormat
from engineroom.openai.tools import Tool, check_tools
from engineroom.openai.unsupported import check_supported

# what a request may leave to the server's defaults
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# what has the same value in the request and in the engine's parameters, None meaning the engine's default
COPIED_FIELDS = (*SAMPLING_FIELDS, "min_tokens", "presence_penalty", "frequency_penalty")
DEFAULT_MAX_TOKENS = 16  # OpenAI's default in /v1/completions


class StreamOptions(StrictModel):
    include_usage: Flag = False
    continuous_usage_stats: Flag = False


class SamplingRequest(StrictModel, ABC):
    """The fields that both kinds of requests share. None means the default."""

    model: str
    max_tokens: MaxTokens = None
    temperature: Annotated[float, Field(ge=0, le=2), NUMBER] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), NUMBER] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31), INTEGER] | None = None
    min_p: Annotated[float, Field(ge=0, le=1), NUMBER] | None = None
    seed: Annotated[int, Field(ge=-(2**53), le=2**53), INTEGER] | None = None
    stop: NonEmptyText | Annotated[list[NonEmptyText], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0), INTEGER]], Field(max_length=16)] | None = None
    ignore_eos: Flag = False
    stream: Flag | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128), INTEGER] | None = None
    best_of: OnlyOneChoice = None
    min_tokens: Annotated[int, Field(ge=0), INTEGER] | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    repetition_penalty: Annotated[float, Field(gt=0), NUMBER] | None = None
    logit_bias: (
        Annotated[dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Bias], Field(max_length=1024)] | None
    ) = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="before")
    @classmethod
    def check_supported(cls, body: object) -> object:
        return check_supported(body)

    @property
    @abstractmethod
    def num_logprobs(self) -> int | None:
        """How many of the likeliest tokens the response lists, beside the chosen token's; None for none at all."""

    @property
    def num_choices(self) -> int:
        """Choices for each prompt."""
        return self.n or 1

    @property
    def stop_strings(self) -> list[str]:
        if isinstance(self.stop, str):
            return [self.stop]
        return self.stop or []

    def sampling_params(
        self, max_tokens: int, end_ids: list[int], defaults: dict[str, Any], grammar: Grammar | None = None
    ) -> SamplingParams:
        """The parameters for the engine.

        `defaults`: SAMPLING_FIELDS for a request that does not set them. Raises FieldError for more than one choice
        that would all be the same; SamplingError for min_tokens beyond max_tokens.
        """
        values = {name: getattr(self, name) for name in COPIED_FIELDS}
        values = defaults | {name: value for name, value in values.items() if value is not None}
        values["top_k"] = max(0, values.get("top_k", 0))  # -1 means no limit too, as in vLLM
        stop_token_ids = list(self.stop_token_ids or [])
        if not self.ignore_eos:
            stop_token_ids += end_ids
        params = SamplingParams(
            max_tokens=max_tokens,
            seed=self.seed,
            stop_words=tuple((token_id,) for token_id in stop_token_ids),
            logprobs=self.num_logprobs,
            logit_bias=tuple((int(token_id), bias) for token_id, bias in (self.logit_bias or {}).items()),
            grammar=grammar,
            **values,
        )
        if self.num_choices > 1 and params.temperature == 0:
            raise FieldError("n", f"{self.n} choices would all be the same at temperature 0; expected 1.")
        return params


class CompletionRequest(SamplingRequest):
    """POST /v1/completions. The first prompt gets the first `n` choices, and so on.

    With `echo` each choice begins with its prompt; `max_tokens` may then be 0, for the prompt alone.
    """

    prompt: (
        NonEmptyText
        | TokenIds
        | Annotated[list[NonEmptyText | TokenIds], Field(min_length=1, max_length=256)]
    )
    max_tokens: Annotated[int, Field(ge=0), INTEGER] | None = None
    logprobs: TopLogprobs = None
    echo: Flag | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def check_max_tokens(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise FieldError("max_tokens", "0 is for requests with `echo` only; expected at least 1.")
        return self

    @property
    def max_output_tokens(self) -> int:
        """How many tokens the engine generates, at least one; for max_tokens 0 it is not sent."""
        return max(1, DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions. Without a token limit, the output may fill the rest of max_seq_len."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: MaxTokens = None
    logprobs: Flag | None = None
    top_logprobs: TopLogprobs = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: OnlyEmptyList = None

    @model_validator(mode="after")
    def check_together(self) -> Self:
        check_tools(self.tools, self.tool_choice)
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", "expected `logprobs`: true beside it.")
        return self

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None
