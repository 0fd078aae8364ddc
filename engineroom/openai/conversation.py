"""The messages of a chat request in the form that a chat template reads, as vLLM prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from engineroom.openai.messages import ChatMessage

Conversation = list[dict[str, Any]]
Turn = tuple[str, list[str]]  # a role, and the text of each part
PROBE = "text of the probe"


def conversation(messages: Sequence[ChatMessage], tokenizer: Any) -> Conversation:
    """Messages for the tokenizer's chat template: it gets each content as a list of parts, or else as one string.

    For a template that does not know the role `developer` its messages become system messages, and several system
    messages become one at the beginning. Several parts of one message are joined with newlines.
    """
    turns: list[Turn] = [(message.role, message.texts) for message in messages]
    if any(role == "developer" for role, _ in turns) and not _names_developer(tokenizer):
        turns = _merge_system_turns(
            [("system" if role == "developer" else role, texts) for role, texts in turns]
        )
    if accepts_parts(tokenizer):
        return [
            {"role": role, "content": [{"type": "text", "text": text} for text in texts]}
            for role, texts in turns
        ]
    return [{"role": role, "content": "\n".join(texts)} for role, texts in turns]


def accepts_parts(tokenizer: Any) -> bool:
    """Whether the chat template reads the parts of a content, found by rendering a message that has one part."""
    probe = [{"role": "user", "content": [{"type": "text", "text": PROBE}]}]
    try:
        rendered: str = tokenizer.apply_chat_template(probe, tokenize=False)
    except (TemplateError, TypeError, ValueError, AttributeError):  # the template treats the list as a string
        return False
    return PROBE in rendered and "'type'" not in rendered


def _names_developer(tokenizer: Any) -> bool:
    template = str(tokenizer.chat_template)
    return "'developer'" in template or '"developer"' in template


def _merge_system_turns(turns: list[Turn]) -> list[Turn]:
    """The turns with at most one system turn, at the beginning; the texts of several are joined with blank lines."""
    if all(role != "system" for role, _ in turns[1:]):
        return turns
    system_texts = ["\n".join(texts) for role, texts in turns if role == "system"]
    text = "\n\n".join(text for text in system_texts if text)
    return [("system", [text]), *(turn for turn in turns if turn[0] != "system")]
