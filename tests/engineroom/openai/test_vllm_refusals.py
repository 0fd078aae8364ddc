"""Requests that vLLM and this server refuse, and those that only one of them refuses: docs/openai.md says why."""

from __future__ import annotations

import pytest

from engineroom.kit.process import Server
from tests.engineroom.openai.comparison import (
    OTHER_ERRORS,
    OTHER_STATUSES,
    QUESTION,
    ApiRequest,
    assert_same_fields,
    chat,
    completion,
    json_schema,
    post,
)

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

# Both refuse the request: the same status, and the same fields of the error.
REFUSED = {
    "a prompt of too many tokens": completion(prompt=[5] * 3000),
    "a text that is too long": completion(prompt="one " * 90_000),
    "a chat that is too long": chat(QUESTION | {"content": "one " * 3000}),
    "more max_tokens than the context has": completion(max_tokens=5000),
    "a user's null content": chat(QUESTION | {"content": None}),
    "a system message's null content": chat({"role": "system", "content": None}, QUESTION),
    "parts that are only strings": chat(QUESTION | {"content": ["What is", "12 + 30?"]}),
    "an unknown role": chat(QUESTION | {"role": "king"}),
    "an unknown model": completion(model="nobody"),
    "no prompt": completion(prompt=""),
    "top_logprobs without logprobs": chat(top_logprobs=2),
    "too many top_logprobs": chat(logprobs=True, top_logprobs=21),
    **{
        f"tools: {tool_choice}": chat(tools=[TOOL], tool_choice=tool_choice)
        for tool_choice in ("auto", "required", {"type": "function", "function": {"name": "add"}})
    },
    "tools without a choice": chat(tools=[TOOL]),
    "a choice without tools": chat(tool_choice="auto"),
    "a response format without its schema": chat(response_format={"type": "json_schema"}),
    "a message of a tool": chat(QUESTION, {"role": "tool", "content": "42", "tool_call_id": "call_1"}),
    "a schema with uniqueItems": chat(response_format=json_schema({"type": "array", "uniqueItems": True})),
    "an unknown response format": chat(response_format={"type": "yaml"}),
    "a schema of an unknown type": chat(
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "foo"}}}
    ),
    **{
        f"{field}: {value!r}": completion(**{field: value})
        for field, value in [
            *(("max_tokens", value) for value in (5.5, "five", "", 0)),
            *(("temperature", value) for value in ("hot", -1)),
            ("prompt", [5.5]),
            *(("n", value) for value in (0, 2)),  # at temperature 0 all choices would be the same
            *(("logprobs", value) for value in (21, -1)),
            *(("presence_penalty", value) for value in (2.5, -2.5)),
            ("frequency_penalty", 2.5),
            ("repetition_penalty", 0),
            ("min_tokens", 5),
            ("min_p", 1.5),
            *(("logit_bias", value) for value in ({"4096": 1}, {"ic": 1}, {"300": "much"})),
            ("suffix", "x"),
            ("prompt", ["5", [6.5]]),
            ("stop", ["a", None]),
            ("stream", "perhaps"),
        ]
    },
}

# Each has a row in the page's table, with both statuses and the reason.
DIFFERENT = {
    "max_tokens: true": completion(max_tokens=True),
    "temperature: true": completion(temperature=True),
    "token ids as text": completion(prompt=[300, "301"]),
    'top_logprobs: "1"': chat(max_tokens=1, logprobs=True, top_logprobs="1"),
    'logprobs: "1"': completion(logprobs="1"),
    "prompt and max_tokens beyond the context": completion(prompt=[5] * 2040, max_tokens=100),
    "stream_options without stream": completion(stream_options={"include_usage": True}),
    "logit_bias of 101": completion(logit_bias={"300": 101}),
    "n: 129": completion(n=129, temperature=1, max_tokens=1),
    "best_of: 2": completion(best_of=2),
    "five stop strings": completion(stop=["a", "b", "c", "d", "e"]),
    "tools: []": chat(tools=[]),
    "functions": chat(functions=[{"name": "add"}]),
    "bad_words": completion(bad_words=["model"]),
    "prompt_logprobs": completion(prompt_logprobs=1),
    "allowed_token_ids": completion(allowed_token_ids=[300]),
    "structured_outputs": completion(structured_outputs={"choice": ["yes", "no"]}),
    "min_tokens with a schema": chat(
        response_format=json_schema({"type": "object"}), min_tokens=1, max_tokens=9
    ),
    "/v1/responses": ("responses", {"model": "course", "input": "A", "max_output_tokens": 3}),
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_both_refuse(server: Server, vllm: Server, request_: ApiRequest) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert ours.status_code == theirs.status_code >= 400, ours.text
    assert_same_fields(ours.json(), theirs.json(), OTHER_ERRORS)
    our_error, their_error = ours.json()["error"], theirs.json()["error"]
    if "maximum context length" in their_error["message"]:
        for message in (our_error["message"], their_error["message"]):
            assert message.startswith("This model's maximum context length is ")
            assert "Please reduce the length of the " in message
        assert (our_error["type"], our_error["code"]) == (their_error["type"], their_error["code"])


def test_the_page_lists_all_requests_that_differ() -> None:
    assert DIFFERENT.keys() == OTHER_STATUSES.keys()
    assert all(reason for *_, reason in OTHER_STATUSES.values())


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_known_differences(server: Server, vllm: Server, name: str) -> None:
    their_status, our_status, _ = OTHER_STATUSES[name]
    ours, theirs = post(server, DIFFERENT[name]), post(vllm, DIFFERENT[name])
    assert (str(theirs.status_code), str(ours.status_code)) == (their_status, our_status), ours.text
    if our_status != "200":
        assert ours.json()["error"]["message"]
