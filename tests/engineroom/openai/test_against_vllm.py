"""The same requests to vLLM and to this server: status and fields are equal but for these tables."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from engineroom import load
from engineroom.kit.process import Server

QUESTION = {"role": "user", "content": "What is 12 + 30?"}
NO_CONTENT = {"role": "assistant", "content": None}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
TEXT_PARTS = [{"type": "text", "text": "What is"}, {"type": "text", "text": "12 + 30?"}]
BRIEF = "Be brief."


def chat(*messages: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
    body = {"model": "course", "messages": [*messages] or [QUESTION], "temperature": 0}
    return "chat/completions", body | options


def completion(**options: Any) -> tuple[str, dict[str, Any]]:
    return "completions", {
        "model": "course",
        "prompt": "One two",
        "max_tokens": 4,
        "temperature": 0,
    } | options


# Status, text, counts of tokens and fields are the same.
EQUAL = {
    "chat": chat(max_tokens=3),
    "chat with log-probabilities": chat(max_tokens=2, logprobs=True, top_logprobs=1),
    "completion": completion(),
    "completion with log-probabilities": completion(logprobs=1),
    "several prompts": completion(prompt=["One two", "Copy: engine"]),
    "an assistant's null content": chat(QUESTION, NO_CONTENT, QUESTION),
    "an assistant's turn without content": chat(QUESTION, {"role": "assistant"}, QUESTION),
    "an assistant's turn without parts": chat(QUESTION, NO_CONTENT | {"content": []}, QUESTION),
    "an assistant's turn of tool calls": chat(QUESTION, NO_CONTENT | {"tool_calls": [CALL]}, QUESTION),
    "an assistant's refusal": chat(
        QUESTION, NO_CONTENT | {"content": [{"type": "refusal", "refusal": "No."}]}, QUESTION
    ),
    "a developer": chat({"role": "developer", "content": BRIEF}, QUESTION),
    "a developer's parts": chat({"role": "developer", "content": TEXT_PARTS}, QUESTION),
    "a developer after a system message": chat(
        {"role": "system", "content": "A."}, {"role": "developer", "content": BRIEF}, QUESTION
    ),
    "a developer after the question": chat(QUESTION, {"role": "developer", "content": BRIEF}),
    "a system message after the question": chat(QUESTION, {"role": "system", "content": BRIEF}),
    "text parts": chat(QUESTION | {"content": TEXT_PARTS}),
    "one text part": chat(QUESTION | {"content": TEXT_PARTS[:1]}),
    "no text part": chat(QUESTION | {"content": []}),
    "a name": chat(QUESTION | {"name": "Ada"}),
    **{
        f"{field}: {value!r}": completion(**{field: value})
        for field, value in [
            *(("max_tokens", value) for value in (5.0, "5", " 5 ", "5.0")),
            *(("temperature", value) for value in ("0", "0.0", 0.0)),
            ("top_p", "1"),
            *(("top_k", value) for value in ("5", 5.0)),
            *(("seed", value) for value in ("7", 7.0)),
            *(("n", value) for value in ("1", 1.0)),
            *(("stream", value) for value in ("false", 0)),
            *(("ignore_eos", value) for value in ("true", 1, "yes")),
            ("stop_token_ids", ["5", 6.0]),
            ("logprobs", 1.0),
            ("echo", "false"),
            ("min_tokens", "0"),
            ("presence_penalty", "0"),
            ("frequency_penalty", 0),
            ("repetition_penalty", "1.0"),
            ("logit_bias", {}),
            ("prompt", [300.0, 301]),
            ("prompt", [[300.0], [301]]),
            ("prompt", ["5", "6"]),
        ]
    },
    "max_completion_tokens: '5'": chat(max_completion_tokens="5"),
}

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
    **{
        f"{field}: {value!r}": completion(**{field: value})
        for field, value in [
            *(("max_tokens", value) for value in (5.5, "five", "", 0)),
            *(("temperature", value) for value in ("hot", -1)),
            ("prompt", [5.5]),
            ("prompt", ["5", [6.5]]),
            ("stop", ["a", None]),
            ("stream", "perhaps"),
        ]
    },
}

# The two servers give different statuses: (vLLM's, ours) and the reason.
OTHER_STATUS = {
    "max_tokens: True": (completion(max_tokens=True), (200, 400), "a flag in place of a number is a mistake"),
    "temperature: True": (completion(temperature=True), (200, 400), "a flag in place of a number is a mistake"),
    "token ids as text": (
        completion(prompt=[300, "301"]), (200, 400), "a list of token ids and texts may mean two things"
    ),
    "top_logprobs: '1'": (
        chat(max_tokens=1, logprobs=True, top_logprobs="1"), (400, 200), "our fields all accept the same forms"
    ),
    "logprobs: '1'": (completion(logprobs="1"), (400, 200), "our fields all accept the same forms of numbers"),
    "prompt and max_tokens beyond the context": (
        completion(prompt=[5] * 2040, max_tokens=100), (200, 400), "vLLM shortens max_tokens without a word"
    ),
    "n": (completion(n=2, temperature=1), (200, 400), "not supported, and refused by name"),
    "echo": (completion(echo=True), (200, 400), "not supported, and refused by name"),
    "logprobs: 2": (completion(logprobs=2), (200, 400), "not supported, and refused by name"),
    "logit_bias": (completion(logit_bias={"5": 1}), (200, 400), "not supported, and refused by name"),
    "min_tokens": (completion(min_tokens=2), (200, 400), "not supported, and refused by name"),
    "presence_penalty": (completion(presence_penalty=1), (200, 400), "not supported, and refused by name"),
    "frequency_penalty": (completion(frequency_penalty=1), (200, 400), "not supported, and refused by name"),
    "repetition_penalty": (completion(repetition_penalty=2), (200, 400), "not supported, and refused by name"),
    "stream_options without stream": (
        completion(stream_options={"include_usage": True}), (400, 200), "clients send it with every request"
    ),
}  # fmt: skip

# Fields that only vLLM has, as paths of the names in a response.
NO_FEATURE = "vLLM's name for a feature that this server does not have; null"
ONLY_VLLM = {
    **dict.fromkeys(
        ("service_tier", "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params"),
        NO_FEATURE,
    ),
    **dict.fromkeys(("ec_transfer_params", "metrics", "usage.completion_tokens_details"), NO_FEATURE),
    **dict.fromkeys(
        (f"choices.{name}" for name in ("stop_reason", "token_ids", "routed_experts")), NO_FEATURE
    ),
    **dict.fromkeys((f"choices.{name}" for name in ("prompt_logprobs", "prompt_token_ids")), NO_FEATURE),
    **dict.fromkeys(
        (
            f"choices.message.{name}"
            for name in ("refusal", "annotations", "audio", "function_call", "reasoning")
        ),
        NO_FEATURE,
    ),
    "system_fingerprint": "the version of the server; ours is not part of its API",
}
# Fields whose values differ.
OTHER_VALUE = {
    "id": "drawn for each response",
    "created": "the time of the response",
    "usage.prompt_tokens_details": "vLLM fills it with an option only; ours always has cached_tokens",
    "choices.logprobs.token_logprobs": "vLLM computes in bfloat16; compared to 0.05",
    "choices.logprobs.top_logprobs": "vLLM computes in bfloat16",
    "choices.logprobs.content.logprob": "vLLM computes in bfloat16; compared to 0.05",
    "choices.logprobs.content.top_logprobs.logprob": "vLLM computes in bfloat16; compared to 0.05",
}  # fmt: skip
OTHER_ERROR = {
    "error.message": "ours says what was expected and what to do",
    "error.type": "OpenAI's invalid_request_error; vLLM has names of its own, ours shares one for a full context",
    "error.code": "OpenAI's codes are words; ours is vLLM's number for a full context",
    "error.param": "OpenAI's param is the field; vLLM's is a path in its own types, or empty",
}


def post(server: Server, request: tuple[str, dict[str, Any]]) -> httpx.Response:
    path, body = request
    return httpx.post(f"{server.url}/v1/{path}", json=body, trust_env=False, timeout=120)


def fields(value: Any, path: str = "") -> dict[str, list[Any]]:
    """The values of each field of a response, with those of all list entries together. Log-probabilities are leaves."""
    if isinstance(value, dict) and value and not path.endswith(("_details", "logprobs.top_logprobs")):
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


def assert_same_fields(ours: Any, theirs: Any, other_values: dict[str, str]) -> None:
    our_fields, their_fields = fields(ours), fields(theirs)
    assert our_fields.keys() == their_fields.keys() - ONLY_VLLM.keys()
    for field in their_fields.keys() & ONLY_VLLM.keys() - {"system_fingerprint"}:
        assert set(their_fields[field]) == {None}
    for field, values in our_fields.items():
        if "logprob" in other_values.get(field, field) and field.endswith(("logprob", "token_logprobs")):
            assert values == pytest.approx(their_fields[field], abs=0.05)
        elif field not in other_values:
            assert (field, values) == (field, their_fields[field])


@pytest.mark.parametrize("request_", EQUAL.values(), ids=EQUAL)
def test_answers_are_equal_field_by_field(
    server: Server, vllm: Server, request_: tuple[str, dict[str, Any]]
) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    assert_same_fields(ours.json(), theirs.json(), OTHER_VALUE)


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_both_refuse(server: Server, vllm: Server, request_: tuple[str, dict[str, Any]]) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert ours.status_code == theirs.status_code >= 400, ours.text
    assert_same_fields(ours.json(), theirs.json(), OTHER_ERROR)
    our_error, their_error = ours.json()["error"], theirs.json()["error"]
    if "maximum context length" in their_error["message"]:
        for message in (our_error["message"], their_error["message"]):
            assert message.startswith("This model's maximum context length is ")
            assert "Please reduce the length of the " in message
        assert (our_error["type"], our_error["code"]) == (their_error["type"], their_error["code"])


@pytest.mark.parametrize(("request_", "statuses", "reason"), OTHER_STATUS.values(), ids=OTHER_STATUS)
def test_the_known_differences(
    server: Server,
    vllm: Server,
    request_: tuple[str, dict[str, Any]],
    statuses: tuple[int, int],
    reason: str,
) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert (theirs.status_code, ours.status_code) == statuses, ours.text
    if reason.endswith("refused by name"):
        [field] = request_[1].keys() - completion()[1].keys() - {"temperature"}
        assert ours.json()["error"]["param"] == field


def chunks(server: Server, request: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
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
    ],
)
def test_streams_are_equal_field_by_field(
    server: Server, vllm: Server, request_: tuple[str, dict[str, Any]]
) -> None:
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
            if name.endswith(("token_logprobs", "logprob")):
                assert values == pytest.approx(their_fields[name], abs=0.05)
            elif f"choices.{name}" not in OTHER_VALUE:
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


@pytest.mark.parametrize("name", ["server", "vllm"])
def test_the_sdk_s_stream_helper_accumulates_one_role(name: str, request: pytest.FixtureRequest) -> None:
    client: openai.OpenAI = load.openai_client(request.getfixturevalue(name))
    with client.chat.completions.stream(model="course", messages=[QUESTION], temperature=0) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert (message.role, message.content) == ("assistant", "12 + 30 = 42")
