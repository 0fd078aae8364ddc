"""OpenAI's own client against the served engine: answers, streams, log-probabilities, stops, errors."""

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


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return load.openai_client(server)


@pytest.fixture(scope="module")
def alone(engine: EngineDir, vocabulary: Vocabulary) -> list[list[int]]:
    """The same engine without HTTP; each prompt by itself, end or not."""
    one = Executor(engine, KvCacheConfig(max_tokens=1024, enable_block_reuse=False))
    params = SamplingParams(max_tokens=40)
    return [one.generate([vocabulary.encode(prompt)], params)[0] for prompt in PROMPTS]


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

    async def everybody() -> list[tuple[list[str], str]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(stream(client, prompt) for prompt in PROMPTS))

    for (tokens, text), ids in zip(asyncio.run(everybody()), alone, strict=True):
        assert tokens == [vocabulary.tokenizer.decode([token]) for token in ids]
        assert text == vocabulary.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="course", messages=SUM, temperature=0)
    choice = answer.choices[0]
    assert "42" in choice.message.content and choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "12 + 30?"}]
    chunks = list(
        client.chat.completions.create(
            model="course", messages=[{"role": "user", "content": parts}], stream=True, logprobs=True,
            stream_options={"include_usage": True}, max_completion_tokens=64,
        )
    )  # fmt: skip
    *said, last = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in said) == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in said] == [None] * (len(said) - 1) + ["stop"]
    assert len(said) == last.usage.completion_tokens == answer.usage.completion_tokens and not last.choices
    first = said[0].choices[0].logprobs.content[0]
    assert bytes(first.bytes).decode() == first.token and first.logprob <= 0


def test_several_prompts_as_text_and_as_tokens(client: openai.OpenAI, vocabulary: Vocabulary) -> None:
    ask = {"model": "course", "max_tokens": 8, "temperature": 0, "logprobs": 1}
    texts = client.completions.create(prompt=PROMPTS, **ask)
    ids = client.completions.create(prompt=[vocabulary.encode(prompt) for prompt in PROMPTS], **ask)
    assert [choice.text for choice in texts.choices] == [choice.text for choice in ids.choices]
    assert [choice.index for choice in texts.choices] == list(range(6))
    assert texts.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in texts.choices)
    found = texts.choices[0].logprobs
    assert found.top_logprobs == [{t: p} for t, p in zip(found.tokens, found.token_logprobs, strict=True)]
    places = zip(found.tokens, found.text_offset, strict=True)
    assert all(texts.choices[0].text[at:].startswith(token) for token, at in places)
    one = client.completions.create(prompt=PROMPTS[3], **ask)
    assert one.choices[0].text == texts.choices[3].text and one.usage.prompt_tokens_details.cached_tokens > 0
    assert client.models.list().data[0].model_dump()["max_model_len"] == 256


@pytest.mark.parametrize("stream", [False, True])
def test_stop(client: openai.OpenAI, stream: bool) -> None:
    ask: dict[str, Any] = {"model": "course", "prompt": PROMPTS[1], "max_tokens": 40, "temperature": 0}
    ask |= {"extra_body": {"ignore_eos": True}}
    whole = client.completions.create(**ask).choices[0].text
    word = whole[9:14]
    found = client.completions.create(stop=["\x00never", word], stream=stream, **ask)
    choices = [chunk.choices[0] for chunk in found] if stream else found.choices
    assert "".join(choice.text for choice in choices) == whole[: whole.index(word)]
    assert choices[-1].finish_reason == "stop"
    later = client.completions.create(stop="\x00never", **ask).choices[0]
    assert later.text == whole and later.finish_reason == "length"


def test_sampling_is_repeated_by_its_seed(client: openai.OpenAI) -> None:
    def text(seed: int) -> str:
        ask = {"model": "course", "prompt": list(range(300, 320)), "temperature": 2, "max_tokens": 32}
        return client.completions.create(seed=seed, **ask).choices[0].text

    assert text(1) == text(1) != text(2)


@pytest.mark.parametrize(
    ("path", "change", "param", "words"),
    [
        ("completions", {"temperature": "hot"}, "temperature", "valid number. Got: 'hot'"),
        ("completions", {"temperature": True}, "temperature", "valid number"),
        ("completions", {"prompt": []}, "prompt", "at least 1"),
        ("completions", {"prompt": [1, "a"]}, "prompt", "valid integer"),
        ("completions", {"prompt": [4096]}, None, "the vocabulary has 4096 tokens"),
        ("completions", {"prompt": [5] * 193}, None, "193 tokens, max_input_len is 192"),
        ("completions", {"max_tokens": 10**30}, None, "max_seq_len is 256"),
        ("completions", {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ("completions", {"n": 2}, "n", "less than or equal to 1. Got: 2"),
        ("completions", {"echo": True}, "echo", "does not have it"),
        ("completions", {"logit_bias": {"5": 1.0}}, "logit_bias", "at most 0"),
        ("completions", {"presence_penalty": 0.5}, "presence_penalty", "less than or equal to 0"),
        ("completions", {"logprobs": 1, "temperature": 1.0}, None, "temperature 0 only"),
        ("chat/completions", {"messages": []}, "messages", "at least 1"),
        ("chat/completions", {"messages": [{"role": "king", "content": ""}]}, "messages", "'system', 'user'"),
        ("chat/completions", {"tools": [{"type": "function"}]}, "tools", "at most 0"),
        ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format", "'text'"),
    ],
)
def test_errors_name_the_field_or_the_limit(
    server: Server, path: str, change: dict[str, Any], param: str | None, words: str
) -> None:
    good = {"model": "course", "unknown_field": 1} | (
        {"messages": SUM} if "chat" in path else {"prompt": "A"}
    )
    answer = httpx.post(f"{server.url}/v1/{path}", json=good | change, trust_env=False)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
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
def test_bodies_that_are_no_request(server: Server, body: bytes, status: int, words: str) -> None:
    head = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=body, headers=head, trust_env=False)
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_other_addresses_have_errors_of_the_same_form(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="nobody", prompt="A")
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/completions", 405)):
        answer = httpx.request(method, server.url + path, trust_env=False)
        assert answer.status_code == status and answer.json()["error"]["message"]


def test_events_end_with_done(server: Server) -> None:
    body = {"model": "course", "prompt": "A", "max_tokens": 3, "stream": True, "ignore_eos": True}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, trust_env=False)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[3:] == ["data: [DONE]", ""]
    assert [json.loads(event[6:])["object"] for event in events[:3]] == ["text_completion"] * 3


def test_vllm_bench_serve(server: Server) -> None:
    asked = {"num_prompts": 12, "random_input_len": 32, "random_output_len": 16, "max_concurrency": 8}
    result = vllm.bench_serve(server, **asked)
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (12, 0, 12 * 16)
