"""Types of the fields of a request, and the error that names a field."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from engineroom.engine.runtime.request import RequestError
from engineroom.openai.lenient import FLAG, INTEGER, INTEGRAL_FLOAT, NUMBER

MAX_TOP_LOGPROBS = 20  # as vLLM's --max-logprobs
Flag = Annotated[bool, FLAG]
TokenId = Annotated[int, Field(ge=0), INTEGRAL_FLOAT]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
NonEmptyText = Annotated[str, Field(min_length=1)]
MaxTokens = Annotated[int, Field(ge=1), INTEGER] | None
TopLogprobs = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), INTEGER] | None
Penalty = Annotated[float, Field(ge=-2, le=2), NUMBER] | None
Bias = Annotated[float, Field(ge=-100, le=100), NUMBER]
OnlyOneChoice = Annotated[int, Field(ge=1, le=1), INTEGER] | None
OnlyEmptyList = Annotated[list[Any], Field(max_length=0)] | None


class FieldError(RequestError):
    """A field has a value that this server or model cannot serve; the message begins with the field's name."""

    def __init__(self, field: str, explanation: str) -> None:
        super().__init__(f"{field}: {explanation}")
        self.field = field


class StrictModel(BaseModel):
    """A value of the wrong type is an error; only fields with a `Lenient` convert values."""

    model_config = ConfigDict(strict=True)
