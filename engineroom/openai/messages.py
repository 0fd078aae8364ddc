"""The messages of a chat request."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from engineroom.openai.fields import StrictModel


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
