"""LiteLLM before Triton and vLLM: who answers, who answers instead, and how it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    """The gateway with vLLM behind it, and a port where an engine's server may be started and stopped."""

    client: openai.OpenAI
    vllm: Server
    engine: Callable[..., Server]
    gateway: Server


@pytest.fixture(scope="module")
def hybrid(
    triton: Triton, engine: EngineDir, vllm: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hybrid]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(ENGINE_KEY)
    port = free_port()

    def serve(grpc: str = triton.grpc, max_requests: int = 8) -> Server:
        line = [sys.executable, "-m", "engineroom.triton", "openai", str(engine.path), "--port", "{port}"]
        line += [
            "--grpc",
            grpc,
            "--url",
            triton.url,
            "--metrics",
            triton.metrics,
            "--api_key_file",
            str(keys),
        ]
        line += ["--served_model_name", "course", "--max_requests", str(max_requests)]
        return start(line, name="stable", port=port)

    here = f"http://127.0.0.1:{port}"
    with gateway.serve_gateway(here, vllm.url, key=KEY, engine_key=ENGINE_KEY) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        yield Hybrid(client, vllm, serve, server)


def tokens(server: Server) -> float:
    """Generated so far, by the server's own counter."""
    return sum(s.value for s in fetch(server) if s.name.endswith(":generation_tokens_total"))


@contextmanager
def answered_by(one: Server, other: Server | None = None) -> Iterator[list[int]]:
    """The tokens noted in the block were counted by `one`, and none by the other."""
    before, noted = tokens(one), list[int]()
    idle = tokens(other) if other else 0
    yield noted
    assert tokens(one) - before == sum(noted) > 0
    assert (tokens(other) if other else 0) == idle


def ask(hybrid: Hybrid, model: str = STABLE, stream: bool = False) -> int:
    """Put the sum, check the answer; how many tokens it had."""
    if not stream:
        answer = hybrid.client.chat.completions.create(model=model, **CHAT)
        assert "42" in answer.choices[0].message.content
        return answer.usage.completion_tokens
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *said, last = list(hybrid.client.chat.completions.create(model=model, **CHAT, **options))
    parts = [one.choices[0].delta.content for one in said if one.choices and one.choices[0].delta.content]
    assert "42" in "".join(parts) and len(parts) > 1
    return last.usage.completion_tokens


def complete(hybrid: Hybrid, model: str, prompt: str) -> int:
    answer = hybrid.client.completions.create(model=model, prompt=prompt, max_tokens=5)
    return answer.usage.completion_tokens


def test_each_name_is_answered_by_its_own_server(hybrid: Hybrid) -> None:
    with hybrid.engine() as stable:
        for model, one, other in ((STABLE, stable, hybrid.vllm), (NEW, hybrid.vllm, stable)):
            with answered_by(one, other) as noted:
                noted += [
                    ask(hybrid, model),
                    ask(hybrid, model, stream=True),
                    complete(hybrid, model, "One two"),
                ]


@pytest.mark.timeout(400)
def test_vllm_answers_for_an_engine_that_is_gone_full_or_cut_off_and_the_engine_again(hybrid: Hybrid) -> None:
    with answered_by(hybrid.vllm) as noted:  # nobody listens
        noted += [ask(hybrid), ask(hybrid, stream=True)]
    with hybrid.engine(max_requests=0) as full, answered_by(hybrid.vllm, full) as noted:  # 429
        noted += [ask(hybrid), ask(hybrid, stream=True)]
    with (
        hybrid.engine(grpc=f"127.0.0.1:{free_port()}") as cut_off,
        answered_by(hybrid.vllm, cut_off) as noted,
    ):
        noted += [ask(hybrid)]  # 503
    with hybrid.engine() as stable:
        with answered_by(stable, hybrid.vllm) as noted:
            noted += [ask(hybrid), ask(hybrid, stream=True)]
        with answered_by(hybrid.vllm, stable) as noted:  # longer than the engine takes
            noted.append(complete(hybrid, STABLE, "one " * 300))


def test_refusals_have_openai_s_form(hybrid: Hybrid) -> None:
    with pytest.raises(openai.BadRequestError) as unknown:
        hybrid.client.chat.completions.create(model="course-old", **CHAT)
    assert "course-old" in unknown.value.body["message"]
    with pytest.raises(openai.BadRequestError, match="No connected db"):  # how LiteLLM says it to a wrong key
        hybrid.client.with_options(api_key="sk-wrong").models.list()
    assert {one.id for one in hybrid.client.models.list()} == {STABLE, NEW}


def test_nothing_is_left_of_a_gateway(hybrid: Hybrid) -> None:
    server = hybrid.gateway
    tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    server.stop()
    assert server.exit_code is not None and not any(one.is_running() for one in tree)
    with pytest.raises(openai.APIConnectionError):
        hybrid.client.models.list()


def test_without_litellm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gateway, "LITELLM", tmp_path / "litellm")
    with pytest.raises(DeploymentError, match=r"bootstrap\.py --gateway"):
        gateway.serve_gateway("http://127.0.0.1:1", "http://127.0.0.1:2", key=KEY)
