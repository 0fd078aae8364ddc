"""What goes over the wire: OpenAI's completions and chat completions, as far as an engine here can answer them.

Field names, defaults and the form of errors follow OpenAI's API reference; `ignore_eos`, `top_k`, `stop_token_ids`,
`continuous_usage_stats` and `max_model_len` are vLLM's additions. Unknown fields are ignored, as other servers do. A
field that would change the answer and is not supported is declared with the one value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engineroom.engine.runtime.sampling import SamplingParams

Token = Annotated[int, Field(ge=0)]
Tokens = Annotated[list[Token], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
Zero = Annotated[float, Field(ge=0, le=0)] | None
One = Annotated[float, Field(ge=1, le=1)] | None
Single = Annotated[int, Field(ge=1, le=1)] | None
Nothing = Annotated[list[Any], Field(max_length=0)] | None


def off(value: bool) -> bool:
    if value:
        raise ValueError("this server does not have it; leave it false")
    return value


class Model(BaseModel):
    model_config = ConfigDict(strict=True)


class StreamOptions(Model):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class ResponseFormat(Model):
    type: Literal["text"]


class SamplingRequest(Model):
    """The fields that both requests share. None stands for the default everywhere."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Token], Field(max_length=16)] | None = None
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Single = None
    best_of: Single = None
    min_tokens: Annotated[int, Field(ge=0, le=0)] | None = None
    min_p: Zero = None
    presence_penalty: Zero = None
    frequency_penalty: Zero = None
    repetition_penalty: One = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: int | bool | None = None

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None and self.logprobs is not False

    @property
    def top(self) -> bool:
        """Whether the likeliest token is to be told, not only the chosen one."""
        return self.logprobs == 1 and self.logprobs is not True

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def params(self, max_tokens: int, end_ids: list[int], defaults: dict[str, Any]) -> SamplingParams:
        """For the engine. `defaults`: temperature, top_p and top_k where the request has none."""
        wishes = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "seed")}
        made = defaults | {name: value for name, value in wishes.items() if value is not None}
        made["top_k"] = max(0, made.get("top_k", 0))
        words = [*(self.stop_token_ids or []), *([] if self.ignore_eos else end_ids)]
        stop_words = tuple((word,) for word in words)
        return SamplingParams(
            max_tokens=max_tokens, stop_words=stop_words, logprobs=self.wants_logprobs, **made
        )


class CompletionRequest(SamplingRequest):
    """POST /v1/completions. Several prompts get an answer each, in choices of their `index`."""

    prompt: Text | Tokens | Annotated[list[Text | Tokens], Field(min_length=1, max_length=256)]
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    echo: Annotated[bool, AfterValidator(off), Field(json_schema_extra={"const": False})] | None = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


class TextPart(Model):
    type: Literal["text"]
    text: str


class Message(Model):
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(SamplingRequest):
    """POST /v1/chat/completions. Without a limit the answer may take what is left of max_seq_len."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    tools: Nothing = None
    functions: Nothing = None

    @property
    def top(self) -> bool:
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


class Completion(BaseModel):
    """An answer, or one chunk of it: `object` says which."""

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


class Card(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "engineroom"
    max_model_len: int


class Cards(BaseModel):
    object: Literal["list"] = "list"
    data: list[Card]


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Failure(BaseModel):
    """OpenAI's form of an error."""

    error: Problem
