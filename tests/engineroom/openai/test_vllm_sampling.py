"""The same requests to vLLM and to this server: log-probabilities, choices, penalties, biases, grammars, tools."""

from __future__ import annotations

import json

import pytest

from engineroom.kit.process import Server
from tests.engineroom.openai.comparison import (
    OTHER_VALUES,
    ApiRequest,
    assert_same_fields,
    chat,
    completion,
    json_schema,
    post,
)

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
REPEATING = list(range(35, 68))  # a prompt whose likeliest continuation repeats one token


EQUAL = {
    "top log-probabilities": chat(max_tokens=4, logprobs=True, top_logprobs=2),
    "log-probabilities without the likeliest": completion(logprobs=0),
    "several log-probabilities": completion(logprobs=2),
    "echo": completion(echo=True),
    "echo of token ids": completion(echo=True, prompt=[300, 301, 302]),
    "echo of a special token": completion(echo=True, prompt=[0, 300, 1]),
    "echo of one token": completion(echo=True, prompt=[300], logprobs=1),
    "echo of several prompts": completion(echo=True, prompt=["One two", "Copy: engine"], logprobs=1),
    "echo with log-probabilities": completion(echo=True, logprobs=1),
    "echo of a long prompt": completion(
        echo=True, prompt="The KV cache holds " * 6, logprobs=0, max_tokens=1
    ),
    "the prompt alone": completion(echo=True, max_tokens=0),
    "the log-likelihood of the prompt": completion(echo=True, max_tokens=0, logprobs=1),
    "a log-likelihood as lm-eval asks for it": completion(
        echo=True, max_tokens=1, logprobs=1, seed=1234, prompt=[[300, 301, 302, 5]]
    ),
    "choices": completion(n=3, temperature=1e-4, seed=1),
    "choices of several prompts": completion(
        n=2, temperature=1e-4, seed=1, prompt=["One two", "Copy: engine"]
    ),
    "choices of a chat": chat(n=2, temperature=1e-4, seed=1),
    "a forbidden token": completion(logit_bias={"1518": -100, "526": -100}, max_tokens=12),
    "a forced token": completion(logit_bias={"300": 100}),
    "a bias as text": completion(logit_bias={"300": "100"}),
    "no bias": completion(logit_bias={}),
    "presence penalty": completion(prompt=REPEATING, presence_penalty=2, max_tokens=6),
    "frequency penalty": completion(prompt=REPEATING, frequency_penalty="1.5", max_tokens=6),
    "repetition penalty": completion(prompt=REPEATING, repetition_penalty=1.5, max_tokens=6),
    "penalties that change nothing": completion(
        presence_penalty="0", frequency_penalty=0, repetition_penalty="1.0", min_tokens="0", min_p=0
    ),
    "a chat of at least 12 tokens": chat(min_tokens=12, max_tokens=12),
    "a stop string within min_tokens": completion(max_tokens=12, min_tokens=4, stop="model"),
    "a stop string after min_tokens": completion(max_tokens=12, min_tokens=2, stop="model"),
    "min_p": completion(temperature=1, min_p=1, seed=1),
    "JSON with a schema": chat(response_format=json_schema(SCHEMA), max_tokens=30),
    "JSON as text": chat(response_format={"type": "text"}),
    "tools that are not called": chat(tools=[TOOL], tool_choice="none"),
    "no tools": chat(tools=None, tool_choice="none", parallel_tool_calls=False),
}


@pytest.mark.parametrize("request_", EQUAL.values(), ids=EQUAL)
def test_answers_are_equal_field_by_field(server: Server, vllm: Server, request_: ApiRequest) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    assert_same_fields(ours.json(), theirs.json(), OTHER_VALUES)


@pytest.mark.parametrize("name", ["server", "vllm"])
@pytest.mark.parametrize(
    "request_",
    [
        chat(response_format={"type": "json_object"}, max_tokens=60, logit_bias={"95": 6}),
        completion(response_format=json_schema(SCHEMA), max_tokens=40, temperature=1, seed=5),
        completion(response_format=json_schema(SCHEMA), max_tokens=40, n=3, temperature=2, seed=7),
    ],
)
def test_an_output_that_stops_is_json(
    name: str, request_: ApiRequest, request: pytest.FixtureRequest
) -> None:
    """The two libraries for grammars allow different blanks and other tokens, so the texts differ."""
    response = post(request.getfixturevalue(name), request_)
    for choice in response.json()["choices"]:
        text = choice.get("text") or choice["message"]["content"]
        assert text.lstrip().startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)
        if choice["finish_reason"] == "stop" and "text" in choice:
            assert isinstance(json.loads(text)["answer"], int)
