"""The same requests to vLLM and to this server: messages, and forms of values. docs/openai.md lists the differences."""

from __future__ import annotations

import openai
import pytest

from engineroom import load
from engineroom.kit.process import Server
from tests.engineroom.openai.comparison import (
    OTHER_VALUES,
    QUESTION,
    TEXT_PARTS,
    ApiRequest,
    assert_same_fields,
    chat,
    completion,
    post,
)

NO_CONTENT = {"role": "assistant", "content": None}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
BRIEF = "Be brief."

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
            ("prompt", [300.0, 301]),
            ("prompt", [[300.0], [301]]),
            ("prompt", ["5", "6"]),
        ]
    },
    "max_completion_tokens: '5'": chat(max_completion_tokens="5"),
}


@pytest.mark.parametrize("request_", EQUAL.values(), ids=EQUAL)
def test_answers_are_equal_field_by_field(server: Server, vllm: Server, request_: ApiRequest) -> None:
    ours, theirs = post(server, request_), post(vllm, request_)
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    assert_same_fields(ours.json(), theirs.json(), OTHER_VALUES)


@pytest.mark.parametrize("name", ["server", "vllm"])
def test_the_sdk_s_stream_helper_accumulates_one_role(name: str, request: pytest.FixtureRequest) -> None:
    client: openai.OpenAI = load.openai_client(request.getfixturevalue(name))
    with client.chat.completions.stream(model="course", messages=[QUESTION], temperature=0) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert (message.role, message.content) == ("assistant", "12 + 30 = 42")
