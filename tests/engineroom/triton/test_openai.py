"""OpenAI's own client before Triton: answers equal the engine's, errors in its form, keys and limits."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import httpx
import openai
import pytest
from typer.testing import CliRunner

from engineroom.engine.runtime.executor import Executor, Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.process import Server
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from engineroom.triton.__main__ import app
from engineroom.triton.client import TimedOut, TritonBackend, request
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.frontend import read_keys
from engineroom.triton.server import Triton
from engineroom.vllm.bench import vllm_bench
from tests.engineroom.openai.test_schema import CONFIG, schemathesis
from tests.engineroom.triton.conftest import commands
from tests.engineroom.triton.streams import settled

SUM = [{"role": "user", "content": "What is 12 + 30?"}]
PROMPT = "One two three four five six seven"


def test_models_and_chat_with_usage(client: openai.OpenAI) -> None:
    assert client.models.list().data[0].model_dump()["max_model_len"] == 256
    answer = client.chat.completions.create(model="course", messages=SUM, temperature=0)
    assert "42" in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    chunks = list(
        client.chat.completions.create(
            model="course", messages=SUM, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    *said, last = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in said) == answer.choices[0].message.content
    assert last.usage.completion_tokens == answer.usage.completion_tokens == len(said) > 5
    assert last.usage.prompt_tokens == answer.usage.prompt_tokens > 5


@pytest.mark.parametrize("drawn", [{"temperature": 0}, {"temperature": 1.5, "seed": -9, "top_p": 0.9}])
def test_streams_equal_the_engine_s_own_output(
    client: openai.OpenAI, vocabulary: Vocabulary, alone: Executor, drawn: dict[str, float]
) -> None:
    ids = alone.generate([vocabulary.encode(PROMPT)], SamplingParams(max_tokens=40, **drawn))[0]
    chunks = list(
        client.completions.create(
            model="course", prompt=PROMPT, max_tokens=40, stream=True, logprobs=0, extra_body={"ignore_eos": True},
            **drawn,
        )
    )  # fmt: skip
    tokens = [token for chunk in chunks for token in chunk.choices[0].logprobs.tokens]
    assert tokens == [vocabulary.tokenizer.decode([token]) for token in ids]
    assert all(chunk.choices[0].logprobs.token_logprobs[0] <= 0 for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_stop_words_end_the_answer(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="course", prompt=PROMPT, max_tokens=40, temperature=0)
    word = whole.choices[0].text[9:14]
    cut = client.completions.create(model="course", prompt=PROMPT, max_tokens=40, temperature=0, stop=word)
    assert cut.choices[0].text == whole.choices[0].text[: whole.choices[0].text.index(word)]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 1000}, "max_seq_len is 256"),
        ({"prompt": [5] * 193}, "max_input_len is 192"),
        ({"prompt": [4096]}, "the vocabulary has 4096 tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 2}, "n: "),
    ],
)
def test_errors_name_the_field_or_the_engine_s_limit(
    client: openai.OpenAI, change: dict[str, object], words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.completions.create(**{"model": "course", "prompt": "A"} | change)


def test_an_api_key_is_asked_for_below_v1_only(front: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sesam\u00e9".encode()}):
        answer = httpx.get(f"{front.url}/v1/models", headers=headers, trust_env=False)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    for path in ("health", "metrics"):
        assert httpx.get(f"{front.url}/{path}", trust_env=False).status_code == 200
    for key in ("sesame", "open"):
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{front.url}/v1/models", headers=headers, trust_env=False).status_code == 200


@pytest.mark.timeout(400)
def test_schemathesis_before_triton(front: Server, tmp_path: Path) -> None:
    """The schema's own checks, as for engineroom/openai; here for what TritonBackend makes of the requests."""
    line = [schemathesis(), "--config-file", CONFIG, "run", f"{front.url}/openapi.json", "--checks", "all"]
    line += ["--max-examples", "5", "--seed", "1", "--workers", "1", "--no-color"]
    line += ["--header", "Authorization: Bearer sesame"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "5 selected / 5 total" in run.stdout and "Traceback" not in front.logs(500)


def test_vllm_bench_serve(front: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    found = vllm_bench(front, random_input_len=16, random_output_len=8, num_prompts=12, seed=3)
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (12, 0, 96)
    assert 0 < found["p50_ttft_ms"] <= found["p99_e2el_ms"]


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    for file in (tmp_path / "keys", tmp_path / "none"):
        with pytest.raises(DeploymentError, match="--api_key_file"):
            read_keys(file)
    assert read_keys(None) == []


def test_more_answers_than_the_limit_are_refused(triton: Triton) -> None:
    async def two() -> str:
        one = TritonBackend(triton.grpc, triton.url, triton.metrics, max_requests=1)
        first = one.generate([300], SamplingParams(max_tokens=200))
        await anext(first)
        try:
            await anext(one.generate([300], SamplingParams()))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await first.aclose()
        return "answered"

    assert "QueueFull: 1 answers are in the making" in asyncio.run(two())


def test_an_answer_beyond_the_time_limit_ends_with_504(triton: Triton) -> None:
    async def slow() -> list[int]:
        one = TritonBackend(triton.grpc, triton.url, triton.metrics, request_timeout=0.001)
        return [output.token async for output in one.generate([300], SamplingParams(max_tokens=200))]

    with pytest.raises(TimedOut, match=r"limit of 0\.001 s") as found:
        asyncio.run(slow())
    assert found.value.status_code == 504


class Stopping(TritonBackend):
    """Stops the engine's process when the first token has come."""

    def __init__(self, triton: Triton, request_timeout: float) -> None:
        super().__init__(triton.grpc, triton.url, triton.metrics, request_timeout)
        [self.process] = [one for one, line in commands(triton).items() if "tensorrt_llm/1/model.py" in line]

    async def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncGenerator[Output]:
        async with aclosing(super().generate(tokens, params)) as outputs:
            async for output in outputs:
                self.process.suspend()
                yield output


def test_an_answer_beyond_the_time_limit_within_a_stream(triton: Triton, vocabulary: Vocabulary) -> None:
    """The engine's process stands still after the first token, until the answer has ended."""
    one = Stopping(triton, request_timeout=4)
    body = {"model": "course", "prompt": [300], "max_tokens": 230, "stream": True, "ignore_eos": True}

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(one, vocabulary, "course", 256))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.post("/v1/completions", json=body)

    try:
        answer = asyncio.run(post())
    finally:
        one.process.resume()
    *tokens, error, done = [line[6:] for line in answer.text.splitlines() if line]
    assert answer.status_code == 200 and done == "[DONE]" and all("text" in token for token in tokens)
    said = json.loads(error)["error"]
    assert (said["type"], said["code"]) == ("server_error", "504") and "limit of 4 s" in said["message"]
    assert settled(triton) == (0, 0, 0)


def test_a_request_has_the_types_of_the_published_tensors() -> None:
    made = request([5, 6], SamplingParams(seed=-1, temperature=0.5, top_k=3, stop_words=((7, 8), (9,))))
    kinds = {tensor.name(): (tensor.datatype(), tensor.shape()) for tensor in made["inputs"]}
    assert kinds["seed"] == ("UINT64", [1, 1]) and kinds["stop_words_list"] == ("INT32", [1, 2, 3])
    assert kinds["input_ids"] == ("INT32", [1, 2]) and kinds["temperature"] == ("FP32", [1, 1])


def test_the_command_says_what_an_engine_lacks(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["openai", str(tmp_path)])
    assert found.exit_code and "Expected an engine directory" in str(found.exception)
