"""The field `response_format`: outputs that are JSON, with or without a schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engineroom.openai.fields import StrictModel


class TextFormat(StrictModel):
    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(StrictModel):
    """`strict` changes nothing: an output always follows the schema."""

    name: str
    description: str | None = None
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(StrictModel):
    """JSON that is valid under a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


def schema_of(response_format: ResponseFormat | None) -> dict[str, Any] | None:
    """The JSON schema that an output must follow; None if it may be any text."""
    if isinstance(response_format, JsonSchemaFormat):
        return response_format.json_schema.json_schema
    return {"type": "object"} if isinstance(response_format, JsonObjectFormat) else None
