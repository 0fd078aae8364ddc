"""What a chat template is given, for templates that read strings, parts, and the role of a developer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from engineroom.openai.conversation import accepts_parts, conversation
from engineroom.openai.messages import ChatMessage

COURSE = Path(__file__).parents[3] / "models" / "course"
FOR_MESSAGES = "{% for message in messages %}<{{ message['role'] }}>"
STRINGS = {
    "the content": FOR_MESSAGES + "{{ message['content'] }}{% endfor %}",
    "trimmed": FOR_MESSAGES + "{{ message.content | trim }}{% endfor %}",
    "added to a text": FOR_MESSAGES + "{{ ' ' + message['content'] }}{% endfor %}",
    "a method of strings": FOR_MESSAGES + "{{ message.content.strip() }}{% endfor %}",
    "only strings": "{% for message in messages %}{% if message.content is not string %}"
    "{{ raise_exception('not a string') }}{% endif %}{{ message.content }}{% endfor %}",
}
PARTS = {
    "a loop": FOR_MESSAGES + "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}",
    "a string or a loop": FOR_MESSAGES + "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}",
    "a macro": "{% macro show(content) %}{% for part in content %}{{ part.text }}{% endfor %}{% endmacro %}"
    + FOR_MESSAGES + "{{ show(message.content) }}{% endfor %}",
}  # fmt: skip
TEXTS = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]


def tokenizer_with(template: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(COURSE)
    tokenizer.chat_template = template
    return tokenizer


def rendered(template: str, *messages: dict[str, Any]) -> str:
    tokenizer = tokenizer_with(template)
    turns = conversation([ChatMessage.model_validate(message) for message in messages], tokenizer)
    return tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize("template", STRINGS.values(), ids=STRINGS)
def test_a_template_of_strings_gets_the_parts_joined_by_newlines(template: str) -> None:
    assert not accepts_parts(tokenizer_with(template))
    text = rendered(template, {"role": "user", "content": TEXTS}, {"role": "assistant", "content": None})
    assert "One\ntwo" in text and "None" not in text


@pytest.mark.parametrize("template", PARTS.values(), ids=PARTS)
def test_a_template_of_parts_gets_them_as_they_are(template: str) -> None:
    assert accepts_parts(tokenizer_with(template))
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": TEXTS}, {"role": "assistant"}]
    assert rendered(template, *messages) == "<system>S<user>Onetwo<assistant>"


@pytest.mark.parametrize("template", [STRINGS["the content"], PARTS["a loop"]])
def test_a_developer_is_a_system_message_where_the_template_does_not_name_it(template: str) -> None:
    def turns(*roles: str) -> list[dict[str, Any]]:
        return [{"role": role, "content": str(index)} for index, role in enumerate(roles)]

    assert rendered(template, *turns("developer", "user")) == "<system>0<user>1"
    assert rendered(template, *turns("system", "developer", "user")) == "<system>0\n\n1<user>2"
    assert rendered(template, *turns("user", "developer", "user")) == "<system>1<user>0<user>2"
    assert rendered(template, *turns("user", "system", "user")) == "<user>0<system>1<user>2"
    named = "{# 'developer' #}" + template
    assert rendered(named, *turns("system", "developer", "user")) == "<system>0<developer>1<user>2"
