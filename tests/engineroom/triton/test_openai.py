"""OpenAI's own client on Triton's frontend: answers equal the engine's; the form of errors, keys and limits."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import httpx
import openai
import pytest
from typer.testing import CliRunner

from engineroom.engine.runtime.async_executor import QueueFull
from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.request import TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.process import Server
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from engineroom.triton.__main__ import app
from engineroom.triton.client import RequestTimeout, TritonBackend, stream_request
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.frontend import read_api_keys
from engineroom.triton.server import Triton
from engineroom.vllm.bench import bench_serve
from tests.engineroom.openai.test_schema import CONFIG, schemathesis
from tests.engineroom.triton.streams import settled

SUM_QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
PROMPT = "One two three four five six seven"


def test_models_and_chat_with_usage(client: openai.OpenAI) -> None:
    assert client.models.list().data[0].model_dump()["max_model_len"] == 256
    body = {"model": "course", "messages": SUM_QUESTION, "temperature": 0}
    completion = client.chat.completions.create(**body)
    assert "42" in completion.choices[0].message.content and completion.choices[0].finish_reason == "stop"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage_chunk = list(client.chat.completions.create(**body, **options))
    text = "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert text == completion.choices[0].message.content
    assert usage_chunk.usage.completion_tokens == completion.usage.completion_tokens == len(chunks) > 5
    assert usage_chunk.usage.prompt_tokens == completion.usage.prompt_tokens > 5


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.5, "seed": -9, "top_p": 0.9},
        {"temperature": 0, "presence_penalty": 2.0, "frequency_penalty": 1.5},
        {"temperature": 0, "repetition_penalty": 3.0, "min_tokens": 30},
    ],
)
def test_streams_equal_the_engine_s_own_output(
    client: openai.OpenAI, vocabulary: Vocabulary, executor: Executor, sampling: dict[str, float]
) -> None:
    params = SamplingParams(max_tokens=40, **sampling)
    token_ids = executor.generate([vocabulary.encode(PROMPT)], params)[0]
    body = {"model": "course", "prompt": PROMPT, "max_tokens": 40, "logprobs": 0} | sampling
    body = {"ignore_eos": True} | body
    chunks = list(
        client.completions.create(
            model=body.pop("model"), prompt=body.pop("prompt"), stream=True, extra_body=body
        )
    )
    texts = [text for chunk in chunks for text in chunk.choices[0].logprobs.tokens]
    assert texts == [vocabulary.tokenizer.decode([token_id]) for token_id in token_ids]
    assert all(chunk.choices[0].logprobs.token_logprobs[0] <= 0 for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stop_words_end_the_answer(client: openai.OpenAI) -> None:
    body = {"model": "course", "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    text = client.completions.create(**body).choices[0].text
    stop = text[9:14]
    stopped = client.completions.create(**body, stop=stop).choices[0]
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 1000}, "max_seq_len is 256"),
        ({"prompt": [5] * 193}, "max_input_len is 192"),
        ({"prompt": [4096]}, "the vocabulary has 4096 tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 2}, "n: "),
        ({"echo": True, "logprobs": 0}, "echo: Triton's model"),
        ({"logit_bias": {"5": 1}}, "logit_bias: Triton's model"),
        ({"logprobs": 2}, "logprobs: Triton's model"),
        ({"logprobs": 1, "temperature": 1}, "logprobs: Triton's model"),
        ({"extra_body": {"min_p": 0.1}}, "min_p: Triton's model"),
        ({"extra_body": {"response_format": {"type": "json_object"}}}, "response_format: Triton's model"),
    ],
)
def test_errors_name_the_field_or_the_engine_s_limit(
    client: openai.OpenAI, change: dict[str, object], expected: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=expected):
        client.completions.create(**{"model": "course", "prompt": "A"} | change)


def test_an_api_key_is_asked_for_below_v1_only(frontend: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sesam\u00e9".encode()}):
        response = httpx.get(f"{frontend.url}/v1/models", headers=headers, trust_env=False)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
    for path in ("health", "metrics"):
        assert httpx.get(f"{frontend.url}/{path}", trust_env=False).status_code == 200
    for key in ("sesame", "open"):
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{frontend.url}/v1/models", headers=headers, trust_env=False).status_code == 200


@pytest.mark.timeout(400)
def test_schemathesis_on_triton_s_frontend(frontend: Server, tmp_path: Path) -> None:
    """The schema's own checks, as for engineroom/openai; here they reach TritonBackend."""
    command = [
        schemathesis(),
        "--config-file",
        CONFIG,
        "run",
        f"{frontend.url}/openapi.json",
        "--checks",
        "all",
    ]
    command += ["--max-examples", "5", "--seed", "1", "--workers", "1", "--no-color"]
    command += ["--header", "Authorization: Bearer sesame"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "5 selected / 5 total" in run.stdout and "Traceback" not in frontend.logs(500)


def test_vllm_bench_serve(frontend: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    report = bench_serve(frontend, random_input_len=16, random_output_len=8, num_prompts=12, seed=3)
    assert (report["completed"], report["failed"], report["total_output_tokens"]) == (12, 0, 96)
    assert 0 < report["p50_ttft_ms"] <= report["p99_e2el_ms"]


def test_a_key_file_without_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    for path in (tmp_path / "keys", tmp_path / "none"):
        with pytest.raises(DeploymentError, match="--api_key_file"):
            read_api_keys(path)
    assert read_api_keys(None) == []


def test_more_answers_than_the_limit_are_refused(triton: Triton) -> None:
    async def send_two_requests() -> None:
        backend = TritonBackend(triton.grpc, triton.url, triton.metrics, max_requests=1)
        async with aclosing(backend.generate([300], SamplingParams(max_tokens=200))) as stream:
            await anext(stream)
            await anext(backend.generate([300], SamplingParams()))

    with pytest.raises(QueueFull, match="1 requests are running"):
        asyncio.run(send_two_requests())


@pytest.mark.parametrize("seconds", [0.001, 0.002, 0.004])
def test_an_answer_beyond_the_time_limit_ends_with_504(seconds: float, triton: Triton) -> None:
    """Again and again: the time may end while gRPC connects, sends or receives."""

    async def generate() -> list[int]:
        backend = TritonBackend(triton.grpc, triton.url, triton.metrics, request_timeout=seconds)
        return [output.token_id async for output in backend.generate([300], SamplingParams(max_tokens=200))]

    for _ in range(40):
        with pytest.raises(RequestTimeout, match=rf"limit of {seconds} s") as error:
            asyncio.run(generate())
        assert error.value.status_code == 504


class SlowReader(TritonBackend):
    """Reads the first token, and the second one only after the time limit."""

    async def generate(
        self, token_ids: Sequence[int], params: SamplingParams, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[TokenOutput]:
        async with aclosing(super().generate(token_ids, params, headers)) as outputs:
            async for output in outputs:
                yield output
                await asyncio.sleep(self.request_timeout + 1)


def test_an_answer_beyond_the_time_limit_within_a_stream(triton: Triton, vocabulary: Vocabulary) -> None:
    """Suspending the engine's process instead would end Triton whenever that process holds a lock."""
    backend = SlowReader(triton.grpc, triton.url, triton.metrics, request_timeout=5)
    body = {"model": "course", "prompt": [300], "max_tokens": 230, "stream": True, "ignore_eos": True}

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(backend, vocabulary, "course", 256))
        async with httpx.AsyncClient(transport=transport, base_url="http://frontend") as client:
            return await client.post("/v1/completions", json=body)

    response = asyncio.run(post())
    *chunks, error_event, end_event = [line[6:] for line in response.text.splitlines() if line]
    assert response.status_code == 200 and end_event == "[DONE]" and all("text" in chunk for chunk in chunks)
    error = json.loads(error_event)["error"]
    assert (error["type"], error["code"]) == ("server_error", "504") and "limit of 5 s" in error["message"]
    assert settled(triton) == (0, 0, 0)


def test_a_request_has_the_types_of_the_published_tensors() -> None:
    params = SamplingParams(seed=-1, temperature=0.5, top_k=3, stop_words=((7, 8), (9,)))
    inputs = stream_request([5, 6], params)["inputs"]
    tensors = {tensor.name(): (tensor.datatype(), tensor.shape()) for tensor in inputs}
    assert tensors["seed"] == ("UINT64", [1, 1]) and tensors["stop_words_list"] == ("INT32", [1, 2, 3])
    assert tensors["input_ids"] == ("INT32", [1, 2]) and tensors["temperature"] == ("FP32", [1, 1])


def test_the_command_says_what_an_engine_lacks(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["openai", str(tmp_path)])
    assert result.exit_code and "Expected an engine directory" in str(result.exception)
