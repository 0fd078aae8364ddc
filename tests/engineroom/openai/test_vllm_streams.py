"""The same streams from vLLM and from this server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engineroom.kit.process import Server
from tests.engineroom.openai.comparison import (
    ONLY_VLLM,
    OTHER_VALUES,
    ApiRequest,
    assert_close,
    chat,
    completion,
    fields,
    post,
)


def chunks(server: Server, request: ApiRequest) -> list[dict[str, Any]]:
    *events, end = [line[6:] for line in post(server, request).text.splitlines() if line]
    assert end == "[DONE]"
    return [json.loads(event) for event in events]


def choice_fields(stream: list[dict[str, Any]], index: int) -> dict[str, list[Any]]:
    """The fields of one choice over all chunks, without nulls; the text is joined."""
    choices = [choice for chunk in stream for choice in chunk["choices"] if choice["index"] == index]
    result: dict[str, list[Any]] = {}
    found_fields = fields(choices)
    for name, values in found_fields.items():
        if not any(other.startswith(f"{name}.") for other in found_fields):  # else it is null in some chunks
            result[name] = [value for value in values if value is not None]
    for name in result.keys() & {"text", "delta.content"}:
        result[name] = ["".join(result[name])]
    return result | {"index": [index]}


@pytest.mark.parametrize(
    "request_",
    [
        chat(stream=True, stream_options={"include_usage": True}),
        chat(stream="true", max_tokens="3", logprobs=True),
        completion(stream=True),
        completion(stream=True, prompt=["One two", "Copy: engine"], logprobs=1),
        completion(stream=1, stream_options={"include_usage": "true"}),
        completion(stream=True, echo=True, logprobs=1),
        completion(stream=True, echo=True, max_tokens=0, logprobs=0),
        completion(stream=True, n=2, temperature=1e-4, seed=1, stream_options={"include_usage": True}),
        chat(stream=True, logprobs=True, top_logprobs=2, max_tokens=4),
    ],
)
def test_streams_are_equal_field_by_field(server: Server, vllm: Server, request_: ApiRequest) -> None:
    """Two differences are allowed, both in what one chunk holds.

    vLLM's first chunk of a chat has the role alone, and ours has the first token too. vLLM may put several tokens into
    one chunk, ours has one in each. Also, our `usage` is null until the last chunk, where vLLM has no such field.
    """
    ours, theirs = chunks(server, request_), chunks(vllm, request_)
    indices = {choice["index"] for chunk in ours for choice in chunk["choices"]}
    assert indices == {choice["index"] for chunk in theirs for choice in chunk["choices"]}
    for index in indices:
        our_fields, their_fields = choice_fields(ours, index), choice_fields(theirs, index)
        only_vllm = {name.removeprefix("choices.") for name in ONLY_VLLM}
        assert our_fields.keys() == their_fields.keys() - only_vllm
        for name, values in our_fields.items():
            if name.endswith(("logprobs", "logprob")):
                assert_close(values, their_fields[name])
            elif f"choices.{name}" not in OTHER_VALUES:
                assert (name, values) == (name, their_fields[name])
    roles = [
        choice["delta"].get("role") for chunk in ours for choice in chunk["choices"] if "delta" in choice
    ]
    assert roles == ["assistant", *[None] * (len(roles) - 1)][: len(roles)]
    assert {name for chunk in ours for name in chunk} - {"usage"} == {
        name for chunk in theirs for name in chunk
    } - ONLY_VLLM.keys() - {"usage"}
    our_usage, their_usage = ours[-1].get("usage"), theirs[-1].get("usage")
    assert (our_usage and our_usage | {"prompt_tokens_details": None}) == (
        their_usage and {"prompt_tokens_details": None} | their_usage
    )
