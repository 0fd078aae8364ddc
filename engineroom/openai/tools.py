"""The fields `tools` and `tool_choice`, as vLLM reads them without a parser for tool calls.

The tools are passed to the chat template, but the server cannot recognise a call in the model's output. So a request
with tools is served only if it asks that none is called.
"""

from __future__ import annotations

from typing import Any, Literal

from engineroom.openai.fields import FieldError, StrictModel

NO_PARSER = (
    'this server recognises no calls of tools in an output; send `"tool_choice": "none"`, or no tools.'
)


class Tool(StrictModel):
    type: Literal["function"]
    function: dict[str, Any]


def check_tools(tools: list[Tool] | None, tool_choice: str | dict[str, Any] | None) -> None:
    """Raises FieldError unless no tool may be called."""
    if tool_choice == "none":
        return
    if tools:
        raise FieldError("tools", NO_PARSER)
    if tool_choice is not None:
        raise FieldError("tool_choice", "there are no tools to choose from; leave it out.")
