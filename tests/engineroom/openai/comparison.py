"""Requests for both servers, the fields of their responses, and the differences that docs/openai.md lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from engineroom.kit.process import Server

PAGE = Path(__file__).parents[3] / "docs" / "openai.md"
ApiRequest = tuple[str, dict[str, Any]]  # a path below /v1, and a body
QUESTION = {"role": "user", "content": "What is 12 + 30?"}
TEXT_PARTS = [{"type": "text", "text": "What is"}, {"type": "text", "text": "12 + 30?"}]


def table(title: str) -> dict[str, list[str]]:
    """The rows of the page's table below a title: the other cells by the first one, without its back quotes."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in rows}


ONLY_VLLM = table("Fields that only vLLM has")
OTHER_VALUES = table("Fields with other values")
OTHER_ERRORS = table("Fields of an error")
OTHER_STATUSES = table("Requests with another status")
FILLED_BY_VLLM = {
    "system_fingerprint",
    "choices.prompt_logprobs",
    "choices.stop_reason",
}  # the others are null
LEAVES = ("_details", "logprobs.top_logprobs", "prompt_logprobs")  # what `fields` leaves whole


def chat(*messages: dict[str, Any], **options: Any) -> ApiRequest:
    body = {"model": "course", "messages": [*messages] or [QUESTION], "temperature": 0}
    return "chat/completions", body | options


def completion(**options: Any) -> ApiRequest:
    return "completions", {
        "model": "course",
        "prompt": "One two",
        "max_tokens": 4,
        "temperature": 0,
    } | options


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def post(server: Server, request: ApiRequest) -> httpx.Response:
    path, body = request
    return httpx.post(f"{server.url}/v1/{path}", json=body, trust_env=False, timeout=120)


def fields(value: Any, path: str = "") -> dict[str, list[Any]]:
    """The values of each field of a response, with those of all list entries together. Log-probabilities are leaves."""
    if isinstance(value, dict) and value and not path.endswith(LEAVES):
        entries = [(f"{path}.{name}".removeprefix("."), entry) for name, entry in value.items()]
    elif isinstance(value, list) and value:
        entries = [(path, entry) for entry in value]
    else:
        return {path: [value]}
    result: dict[str, list[Any]] = {}
    for entry_path, entry in entries:
        for field, values in fields(entry, entry_path).items():
            result.setdefault(field, []).extend(values)
    return result


def assert_close(ours: list[Any], theirs: list[Any]) -> None:
    """Log-probabilities are equal within 2 % or 0.15: vLLM has bfloat16. Those of likely tokens are paired by text."""
    assert len(ours) == len(theirs)
    for our_value, their_value in zip(ours, theirs, strict=True):
        if our_value is None or their_value is None:
            assert our_value is their_value
            continue
        if isinstance(our_value, dict) and isinstance(their_value, dict):
            assert list(our_value)[:1] == list(their_value)[:1] and len(our_value) == len(their_value)
            common = our_value.keys() & their_value.keys()
            assert (
                len(common) >= len(our_value) - 1
            )  # at the end of the list two tokens may be equally likely
            our_value = [our_value[token] for token in sorted(common)]
            their_value = [their_value[token] for token in sorted(common)]
        assert our_value == pytest.approx(their_value, abs=0.15, rel=0.02)


def assert_same_fields(ours: Any, theirs: Any, other_values: dict[str, list[str]]) -> None:
    our_fields, their_fields = fields(ours), fields(theirs)
    assert our_fields.keys() == their_fields.keys() - ONLY_VLLM.keys()
    for field in their_fields.keys() & ONLY_VLLM.keys() - FILLED_BY_VLLM:
        assert set(their_fields[field]) == {None}
    for field, values in our_fields.items():
        if field.endswith(("logprob", "logprobs")):
            assert_close(values, their_fields[field])
        elif field not in other_values:
            assert (field, values) == (field, their_fields[field])
