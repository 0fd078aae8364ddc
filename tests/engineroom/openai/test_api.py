"""OpenAI's own client against the served engine: completions, streams, log-probabilities, stops, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from engineroom import load, vllm
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.process import Server
from engineroom.openai.http import MAX_BODY
from engineroom.openai.text import Vocabulary

PROMPTS = [
    "The KV cache",
    "One two three four five six seven",
    "Copy: engine room",
    "What is TTFT? " * 9,
    "A",
    "B b",
]
SUM = [{"role": "user", "content": "What is 12 + 30?"}]
TOOL = {"type": "function", "function": {"name": "add"}}
UNIQUE_ITEMS = {
    "type": "json_schema",
    "json_schema": {"name": "set", "schema": {"type": "array", "uniqueItems": True}},
}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return load.openai_client(server)


@pytest.fixture(scope="module")
def alone(engine: EngineDir, vocabulary: Vocabulary) -> list[list[int]]:
    """The output of each prompt from the same engine without HTTP; it goes on after an end token."""
    executor = Executor(engine, KvCacheConfig(max_tokens=1024, enable_block_reuse=False))
    params = SamplingParams(max_tokens=40)
    return [executor.generate([vocabulary.encode(prompt)], params)[0] for prompt in PROMPTS]


def test_streams_together_equal_the_engine_alone(
    server: Server, vocabulary: Vocabulary, alone: list[list[int]]
) -> None:
    async def stream(client: openai.AsyncOpenAI, prompt: str) -> tuple[list[str], str]:
        tokens, text = [], ""
        async for chunk in await client.completions.create(
            model="course", prompt=prompt, max_tokens=40, temperature=0, stream=True, logprobs=0,
            extra_body={"ignore_eos": True},
        ):  # fmt: skip
            tokens += chunk.choices[0].logprobs.tokens
            text += chunk.choices[0].text
        return tokens, text

    async def all_streams() -> list[tuple[list[str], str]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(stream(client, prompt) for prompt in PROMPTS))

    for (tokens, text), token_ids in zip(asyncio.run(all_streams()), alone, strict=True):
        assert tokens == [vocabulary.tokenizer.decode([token_id]) for token_id in token_ids]
        assert text == vocabulary.tokenizer.decode(token_ids, skip_special_tokens=True)


def test_chat(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="course", messages=SUM, temperature=0)
    choice, usage = completion.choices[0], completion.usage
    assert "42" in choice.message.content and choice.finish_reason == "stop"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    parts = [{"type": "text", "text": SUM[0]["content"]}]
    chunks = list(
        client.chat.completions.create(
            model="course", messages=[{"role": "user", "content": parts}], stream=True, logprobs=True,
            stream_options={"include_usage": True}, max_completion_tokens=64,
        )
    )  # fmt: skip
    *text_chunks, last_chunk = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in text_chunks) == choice.message.content
    finish_reasons = [chunk.choices[0].finish_reason for chunk in text_chunks]
    assert finish_reasons == [None] * (len(text_chunks) - 1) + ["stop"]
    assert len(text_chunks) == last_chunk.usage.completion_tokens == usage.completion_tokens
    assert not last_chunk.choices
    first = text_chunks[0].choices[0].logprobs.content[0]
    assert bytes(first.bytes).decode() == first.token and first.logprob <= 0


def test_several_prompts_as_text_and_as_tokens(client: openai.OpenAI, vocabulary: Vocabulary) -> None:
    options = {"model": "course", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    by_text = client.completions.create(prompt=PROMPTS, **options)
    prompts = [vocabulary.encode(prompt) for prompt in PROMPTS]
    by_token_ids = client.completions.create(prompt=prompts, **options)
    assert [choice.text for choice in by_text.choices] == [choice.text for choice in by_token_ids.choices]
    assert [choice.index for choice in by_text.choices] == list(range(6))
    num_tokens = sum(len(choice.logprobs.tokens) for choice in by_text.choices)
    assert by_text.usage.completion_tokens == num_tokens
    text, logprobs = by_text.choices[0].text, by_text.choices[0].logprobs
    pairs = zip(logprobs.tokens, logprobs.token_logprobs, strict=True)
    assert logprobs.top_logprobs == [
        {token: logprob} for token, logprob in pairs
    ]  # the likeliest are the chosen
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert text[offset:].startswith(token)
    repeated = client.completions.create(prompt=PROMPTS[3], **options)
    assert repeated.choices[0].text == by_text.choices[3].text
    assert repeated.usage.prompt_tokens_details.cached_tokens > 0
    assert client.models.list().data[0].model_dump()["max_model_len"] == 256


@pytest.mark.parametrize("stream", [False, True])
def test_stop(client: openai.OpenAI, stream: bool) -> None:
    options: dict[str, Any] = {"model": "course", "prompt": PROMPTS[1], "max_tokens": 40, "temperature": 0}
    options |= {"extra_body": {"ignore_eos": True}}
    full_text = client.completions.create(**options).choices[0].text
    stop_string = full_text[9:14]
    stop = ["\x00never", stop_string]
    if stream:
        chunks = list(client.completions.create(stop=stop, stream=True, **options))
    else:
        chunks = [client.completions.create(stop=stop, **options)]
    choices = [chunk.choices[0] for chunk in chunks]
    assert "".join(choice.text for choice in choices) == full_text[: full_text.index(stop_string)]
    assert choices[-1].finish_reason == "stop"
    unstopped = client.completions.create(stop="\x00never", **options).choices[0]
    assert unstopped.text == full_text and unstopped.finish_reason == "length"


def test_sampling_is_repeated_by_its_seed(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        options = {"model": "course", "prompt": list(range(300, 320)), "temperature": 2, "max_tokens": 32}
        return client.completions.create(seed=seed, **options).choices[0].text

    assert text(1) == text(1) != text(2)


@pytest.mark.parametrize(
    ("path", "changes", "param", "message"),
    [
        ("completions", {"temperature": "hot"}, "temperature", "valid number. Got: 'hot'"),
        ("completions", {"temperature": True}, "temperature", "valid number"),
        ("completions", {"prompt": []}, "prompt", "at least 1"),
        ("completions", {"prompt": [1, "a"]}, "prompt", "valid integer"),
        ("completions", {"prompt": [4096]}, None, "the vocabulary has 4096 tokens"),
        ("completions", {"max_tokens": 0}, "max_tokens", "expected at least 1"),
        ("completions", {"n": 2}, "n", "all be the same at temperature 0"),
        ("completions", {"n": 129}, "n", "less than or equal to 128. Got: 129"),
        ("completions", {"best_of": 2}, "best_of", "less than or equal to 1. Got: 2"),
        ("completions", {"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ("completions", {"logit_bias": {"4096": 1.0}}, "logit_bias", "the vocabulary has 4096 tokens"),
        ("completions", {"logit_bias": {"ic": 1.0}}, "logit_bias", "match pattern"),
        ("completions", {"presence_penalty": 2.5}, "presence_penalty", "less than or equal to 2"),
        ("completions", {"min_tokens": 17}, "min_tokens", "from 0 to max_tokens, 16"),
        ("completions", {"use_beam_search": True}, "use_beam_search", "does not support it"),
        ("completions", {"guided_json": {}}, "guided_json", "does not support it"),
        ("chat/completions", {"messages": []}, "messages", "at least 1"),
        ("chat/completions", {"messages": [{"role": "king", "content": ""}]}, "messages", "'system', 'user'"),
        ("chat/completions", {"top_logprobs": 2}, "top_logprobs", "`logprobs`: true"),
        ("chat/completions", {"tools": [TOOL]}, "tools", '"tool_choice": "none"'),
        ("chat/completions", {"tools": [TOOL], "tool_choice": "required"}, "tools", '"tool_choice": "none"'),
        ("chat/completions", {"tool_choice": "auto"}, "tool_choice", "no tools"),
        ("chat/completions", {"response_format": {"type": "yaml"}}, "response_format", "'json_schema'"),
        ("chat/completions", {"response_format": UNIQUE_ITEMS}, "response_format", 'keys: ["uniqueItems"]'),
    ],
)
def test_errors_name_the_field_or_the_limit(
    server: Server, path: str, changes: dict[str, Any], param: str | None, message: str
) -> None:
    prompt = {"messages": SUM} if "chat" in path else {"prompt": "A"}
    body = {"model": "course", "unknown_field": 1} | prompt | changes
    response = httpx.post(f"{server.url}/v1/{path}", json=body, trust_env=False)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message in error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": [5] * 193}, "193 tokens, max_input_len is 192"),
        ({"prompt": [[5], [5] * 193]}, "193 tokens, max_input_len is 192"),
        ({"prompt": [5] * 100, "max_tokens": 157}, "may reach 257 tokens, max_seq_len is 256"),
        ({"max_tokens": 10**30}, "max_seq_len is 256"),
    ],
)
def test_a_full_context_is_refused_in_words_that_gateways_know(
    client: openai.OpenAI, changes: dict[str, Any], message: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=r"maximum context length is 256 tokens\. ") as error:
        client.completions.create(**{"model": "course", "prompt": "A", "stream": stream} | changes)
    body: Any = error.value.body
    assert (body["type"], body["code"]) == ("BadRequestError", 400)  # vLLM's
    assert message in body["message"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"model": "course", "prompt": "\xff"}', 400, "not JSON: invalid unicode"),
        (b'{"model": "course", "prompt": "\\ud800"}', 400, "not JSON"),
        (b'{"model": "course", "prompt": "a", "temperature": NaN}', 400, "not JSON"),
        (b'{"model": "course", "prompt": "a", "seed": ' + b"1" * 5000 + b"}", 400, "not JSON: number out of"),
        (b"[" * 100_000, 400, "recursion limit"),
        (b'{"prompt": "' + b"a" * MAX_BODY + b'"}', 413, "larger than"),
        (b'{"model": "nobody", "prompt": "a"}', 404, "this server has 'course'"),
    ],
)
def test_bodies_that_are_no_request(server: Server, body: bytes, status: int, message: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers, trust_env=False)
    assert response.status_code == status and message in response.json()["error"]["message"]


def test_other_addresses_have_errors_of_the_same_form(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="nobody", prompt="A")
    with pytest.raises(openai.NotFoundError, match="send the input to /v1/chat/completions"):
        client.responses.create(model="course", input="A")
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/completions", 405)):
        response = httpx.request(method, server.url + path, trust_env=False)
        assert response.status_code == status and response.json()["error"]["message"]


def test_events_end_with_done(server: Server) -> None:
    body = {"model": "course", "prompt": "A", "max_tokens": 3, "stream": True, "ignore_eos": True}
    response = httpx.post(f"{server.url}/v1/completions", json=body, trust_env=False)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[3:] == ["data: [DONE]", ""]
    assert [json.loads(event[6:])["object"] for event in events[:3]] == ["text_completion"] * 3


def test_vllm_bench_serve(server: Server) -> None:
    options = {"num_prompts": 12, "random_input_len": 32, "random_output_len": 16, "max_concurrency": 8}
    result = vllm.bench_serve(server, **options)
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (12, 0, 12 * 16)
