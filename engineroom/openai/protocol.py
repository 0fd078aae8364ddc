"""Requests and responses: OpenAI's completions and chat completions, as far as this server supports them.

Field names, defaults and the form of errors follow OpenAI's API reference; `ignore_eos`, `top_k`, `stop_token_ids`,
`continuous_usage_stats` and `max_model_len` are vLLM's additions. Unknown fields are ignored, as other servers do. A
field that would change the output and is not supported accepts only the one value that changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.lenient import FLAG, INTEGER, INTEGRAL_FLOAT, NUMBER

Flag = Annotated[bool, FLAG]
TokenId = Annotated[int, Field(ge=0), INTEGRAL_FLOAT]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
NonEmptyText = Annotated[str, Field(min_length=1)]
OnlyZero = Annotated[float, Field(ge=0, le=0), NUMBER] | None
OnlyOne = Annotated[float, Field(ge=1, le=1), NUMBER] | None
OnlyOneChoice = Annotated[int, Field(ge=1, le=1), INTEGER] | None
MaxTokens = Annotated[int, Field(ge=1), INTEGER] | None
OnlyEmptyList = Annotated[list[Any], Field(max_length=0)] | None


def must_be_false(value: bool) -> bool:
    if value:
        raise ValueError("this server does not support it; leave it false")
    return value


class StrictModel(BaseModel):
    """A value of the wrong type is an error; only fields with a `Lenient` convert values."""

    model_config = ConfigDict(strict=True)


class StreamOptions(StrictModel):
    include_usage: Flag = False
    continuous_usage_stats: Flag = False


class ResponseFormat(StrictModel):
    type: Literal["text"]


class SamplingRequest(StrictModel, ABC):
    """The fields that both kinds of requests share. None means the default."""

    model: str
    max_tokens: MaxTokens = None
    temperature: Annotated[float, Field(ge=0, le=2), NUMBER] | None = None
    top_p: Annotated[float, Field(gt=0, le=1), NUMBER] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31), INTEGER] | None = None
    seed: Annotated[int, Field(ge=-(2**53), le=2**53), INTEGER] | None = None
    stop: NonEmptyText | Annotated[list[NonEmptyText], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0), INTEGER]], Field(max_length=16)] | None = None
    ignore_eos: Flag = False
    stream: Flag | None = False
    stream_options: StreamOptions | None = None
    n: OnlyOneChoice = None
    best_of: OnlyOneChoice = None
    min_tokens: Annotated[int, Field(ge=0, le=0), INTEGER] | None = None
    min_p: OnlyZero = None
    presence_penalty: OnlyZero = None
    frequency_penalty: OnlyZero = None
    repetition_penalty: OnlyOne = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None

    @property
    @abstractmethod
    def wants_logprobs(self) -> bool: ...

    @property
    @abstractmethod
    def wants_top_logprobs(self) -> bool:
        """Whether the log-probability of the most likely token is requested too, not only that of the chosen one."""

    @property
    def stop_strings(self) -> list[str]:
        if isinstance(self.stop, str):
            return [self.stop]
        return self.stop or []

    def sampling_params(
        self, max_tokens: int, end_ids: list[int], defaults: dict[str, Any]
    ) -> SamplingParams:
        """The parameters for the engine.

        `defaults`: temperature, top_p and top_k for a request that does not set them.
        """
        values = dict(defaults)
        for name in ("temperature", "top_p", "top_k", "seed"):
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        values["top_k"] = max(0, values.get("top_k", 0))  # -1 means no limit too, as in vLLM
        stop_token_ids = list(self.stop_token_ids or [])
        if not self.ignore_eos:
            stop_token_ids += end_ids
        return SamplingParams(
            max_tokens=max_tokens,
            stop_words=tuple((token_id,) for token_id in stop_token_ids),
            logprobs=self.wants_logprobs,
            **values,
        )


class CompletionRequest(SamplingRequest):
    """POST /v1/completions. Each prompt gets a choice, whose `index` is the index of the prompt."""

    prompt: (
        NonEmptyText
        | TokenIds
        | Annotated[list[NonEmptyText | TokenIds], Field(min_length=1, max_length=256)]
    )
    logprobs: Annotated[int, Field(ge=0, le=1), INTEGER] | None = None
    echo: (
        Annotated[bool, AfterValidator(must_be_false), Field(json_schema_extra={"const": False}), FLAG] | None
    ) = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        token_ids = [item for item in self.prompt if isinstance(item, int)]
        return [token_ids] if token_ids else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def wants_top_logprobs(self) -> bool:
        return self.logprobs == 1


class TextPart(StrictModel):
    type: Literal["text"]
    text: str


class RefusalPart(StrictModel):
    type: Literal["refusal"]
    refusal: str


class ChatMessage(StrictModel):
    """One turn of a conversation. An assistant's turn may have no content, as one that only called tools."""

    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[TextPart | RefusalPart] | None = None

    @model_validator(mode="after")
    def check_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"the {self.role}'s content is missing; only an assistant's content may be null")
        return self

    @property
    def texts(self) -> list[str]:
        """The text of each part."""
        if isinstance(self.content, list):
            return [part.text if isinstance(part, TextPart) else part.refusal for part in self.content]
        return [] if self.content is None else [self.content]


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions. Without a token limit, the output may fill the rest of max_seq_len."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: MaxTokens = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=1), INTEGER] | None = None
    tools: OnlyEmptyList = None
    functions: OnlyEmptyList = None

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)

    @property
    def wants_top_logprobs(self) -> bool:
        return self.top_logprobs == 1


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class Choice(BaseModel):
    """`text` in a completion, `message` in a chat completion, `delta` in a chunk of one."""

    index: int
    text: str | None = None
    message: dict[str, str] | None = None
    delta: dict[str, str] | None = None
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class CompletionResponse(BaseModel):
    """A completion or a chunk of one; `object` says which."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "engineroom"
    max_model_len: int


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorInfo(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | int | None = None


class ErrorResponse(BaseModel):
    """OpenAI's form of an error."""

    error: ErrorInfo
