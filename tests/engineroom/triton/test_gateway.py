"""LiteLLM in front of Triton and vLLM: which server answers, which is the fallback, and how requests are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from engineroom.engine.directory import EngineDir
from engineroom.kit.process import Server, free_port, start
from engineroom.metrics.prometheus import fetch
from engineroom.triton import gateway
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.server import Triton

KEY, ENGINE_KEY = "sk-course", "sesame"
STABLE, NEW = "course-stable", "course-new"
CHAT = {"messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0}


@dataclass
class Hybrid:
    """The gateway with vLLM behind it. `start_engine` starts the OpenAI frontend of the engine behind it."""

    client: openai.OpenAI
    vllm: Server
    start_engine: Callable[..., Server]
    gateway: Server


@pytest.fixture(scope="module")
def hybrid(
    triton: Triton, engine: EngineDir, vllm: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hybrid]:
    api_key_file = tmp_path_factory.mktemp("keys") / "keys"
    api_key_file.write_text(ENGINE_KEY)
    port = free_port()

    def start_engine(grpc: str = triton.grpc, max_requests: int = 8) -> Server:
        command = [sys.executable, "-m", "engineroom.triton", "openai", str(engine.path), "--port", "{port}"]
        command += ["--grpc", grpc, "--url", triton.url, "--metrics", triton.metrics]
        command += ["--served_model_name", "course", "--max_requests", str(max_requests)]
        command += ["--api_key_file", str(api_key_file)]
        return start(command, name="stable", port=port)

    engine_url = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("http_proxy", "HTTP_PROXY"):
            patch.setenv(variable, "http://127.0.0.1:9")  # no proxy listens there
        server = gateway.serve_gateway(engine_url, vllm.url, key=KEY, engine_key=ENGINE_KEY)
    with server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        yield Hybrid(client, vllm, start_engine, server)


@dataclass
class ContextGateway:
    """The gateway without its general `fallbacks`, between two servers; `context_window_fallbacks` is as it was."""

    client: openai.OpenAI
    stable: Server
    vllm: Server


@pytest.fixture(scope="module")
def context_gateway(hybrid: Hybrid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContextGateway]:
    """Replaces the gateway of `hybrid`, so tests with this one come last."""
    lines = gateway.CONFIG.read_text().splitlines(keepends=True)
    kept_lines = [line for line in lines if not line.startswith("  fallbacks:")]
    assert len(kept_lines) == len(lines) - 1
    config = tmp_path_factory.mktemp("gateway") / "litellm.yaml"
    config.write_text("".join(kept_lines))
    with pytest.MonkeyPatch.context() as patch, hybrid.start_engine() as stable:
        patch.setattr(gateway, "CONFIG", config)
        with gateway.serve_gateway(stable.url, hybrid.vllm.url, key=KEY, engine_key=ENGINE_KEY) as server:
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
            yield ContextGateway(client, stable, hybrid.vllm)


def generated_tokens(server: Server) -> float:
    """Tokens generated so far, according to the server's own counter."""
    samples = fetch(server)
    return sum(sample.value for sample in samples if sample.name.endswith(":generation_tokens_total"))


@contextmanager
def answered_by(server: Server, idle: Server | None = None) -> Iterator[list[int]]:
    """Yield a list for token counts. At the end, `server` must have counted their sum, and `idle` nothing."""
    counts: list[int] = []
    before = generated_tokens(server)
    idle_before = generated_tokens(idle) if idle else 0
    yield counts
    assert generated_tokens(server) - before == sum(counts) > 0
    assert (generated_tokens(idle) if idle else 0) == idle_before


def chat(hybrid: Hybrid, model: str = STABLE, stream: bool = False) -> int:
    """Ask for the sum and check the answer. Returns the number of its tokens."""
    if not stream:
        completion = hybrid.client.chat.completions.create(model=model, **CHAT)
        assert "42" in completion.choices[0].message.content
        return completion.usage.completion_tokens
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage_chunk = list(hybrid.client.chat.completions.create(model=model, **CHAT, **options))
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    texts = [text for text in deltas if text]
    assert "42" in "".join(texts) and len(texts) > 1
    return usage_chunk.usage.completion_tokens


def complete(hybrid: Hybrid, model: str, prompt: str) -> int:
    """Returns the number of the answer's tokens."""
    return hybrid.client.completions.create(model=model, prompt=prompt, max_tokens=5).usage.completion_tokens


def test_each_name_is_answered_by_its_own_server(hybrid: Hybrid) -> None:
    with hybrid.start_engine() as stable:
        for model, server, idle in ((STABLE, stable, hybrid.vllm), (NEW, hybrid.vllm, stable)):
            with answered_by(server, idle) as counts:
                counts += [chat(hybrid, model), chat(hybrid, model, stream=True)]
                counts.append(complete(hybrid, model, "One two"))


@pytest.mark.timeout(400)
def test_vllm_answers_for_an_engine_that_is_gone_full_or_cut_off_and_the_engine_again(hybrid: Hybrid) -> None:
    with answered_by(hybrid.vllm) as counts:  # no server on the port
        counts += [chat(hybrid), chat(hybrid, stream=True)]
    with hybrid.start_engine(max_requests=0) as full, answered_by(hybrid.vllm, full) as counts:  # 429
        counts += [chat(hybrid), chat(hybrid, stream=True)]
    with (
        hybrid.start_engine(grpc=f"127.0.0.1:{free_port()}") as cut_off,
        answered_by(hybrid.vllm, cut_off) as counts,
    ):
        counts += [chat(hybrid)]  # 503
    with hybrid.start_engine() as stable:
        with answered_by(stable, hybrid.vllm) as counts:
            counts += [chat(hybrid), chat(hybrid, stream=True)]
        with answered_by(hybrid.vllm, stable) as counts:  # longer than the engine accepts
            counts.append(complete(hybrid, STABLE, "one " * 300))


def test_refusals_have_openai_s_form(hybrid: Hybrid) -> None:
    with pytest.raises(openai.BadRequestError) as unknown:
        hybrid.client.chat.completions.create(model="course-old", **CHAT)
    body: Any = unknown.value.body
    assert "course-old" in body["message"]
    with pytest.raises(openai.BadRequestError, match="No connected db"):  # LiteLLM's message for a wrong key
        hybrid.client.with_options(api_key="sk-wrong").models.list()
    assert {model.id for model in hybrid.client.models.list()} == {STABLE, NEW}


def test_a_stopped_gateway_leaves_nothing_behind(hybrid: Hybrid) -> None:
    server = hybrid.gateway
    root = psutil.Process(server.pid)
    processes = [root, *root.children(recursive=True)]
    server.stop()
    assert server.exit_code is not None and not any(process.is_running() for process in processes)
    with pytest.raises(openai.APIConnectionError):
        hybrid.client.models.list()


@pytest.mark.parametrize("path", ["completions", "chat", "stream"])
def test_a_prompt_that_is_too_long_falls_back_by_its_own_rule(
    context_gateway: ContextGateway, path: str
) -> None:
    """LiteLLM must recognise the refusal as a context-window error: no other rule leads to vLLM here."""
    client, text = context_gateway.client, "one " * 300
    with answered_by(context_gateway.vllm, context_gateway.stable) as counts:
        if path == "completions":
            usage = client.completions.create(model=STABLE, prompt=text, max_tokens=5).usage
        else:
            body = {"model": STABLE, "messages": [{"role": "user", "content": text}], "max_tokens": 5}
            options = {"stream": True, "stream_options": {"include_usage": True}} if path == "stream" else {}
            response = client.chat.completions.create(**body, **options)
            usage = (list(response)[-1] if options else response).usage
        counts.append(usage.completion_tokens)


def test_another_refusal_does_not_fall_back(context_gateway: ContextGateway) -> None:
    with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
        context_gateway.client.chat.completions.create(model=STABLE, **CHAT, frequency_penalty=3)


def test_without_litellm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gateway, "LITELLM", tmp_path / "litellm")
    with pytest.raises(DeploymentError, match=r"bootstrap\.py --gateway"):
        gateway.serve_gateway("http://127.0.0.1:1", "http://127.0.0.1:2", key=KEY)
