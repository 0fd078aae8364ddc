"""A real collector, and real engine servers that send it their spans."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import httpx
import pytest

from engineroom.engine.directory import TOKENIZER, EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.kit.process import Server
from engineroom.openai.start import serve_engine
from engineroom.openai.text import Vocabulary
from engineroom.tracing.backend import PHASES
from engineroom.tracing.collector import Collector
from engineroom.tracing.span import Span
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
Start = Callable[..., Server]
CLIENT_SPAN = "b7ad6b7169203331"  # the id of the client's span, which no collector receives


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def start(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts `engineroom serve`; the caller stops it."""
    home = str(tmp_path_factory.mktemp("home"))

    def start_server(**options: object) -> Server:
        defaults = {"served_model_name": "course", "max_tokens_in_paged_kv_cache": 1024}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ENGINEROOM_HOME", home)
            return serve_engine(engine.path, **(defaults | options))

    return start_server


@pytest.fixture(scope="module")
def server(start: Start, collector: Collector) -> Iterator[Server]:
    with start(otlp_traces_endpoint=collector.url) as server:
        yield server


@pytest.fixture(scope="module")
def executor(engine: EngineDir) -> Iterator[AsyncExecutor]:
    executor = AsyncExecutor(Executor(engine, KvCacheConfig(max_tokens=512)))
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def vocabulary(engine: EngineDir) -> Vocabulary:
    return Vocabulary(engine.path / TOKENIZER)


def new_trace_id() -> str:
    return secrets.token_hex(16)


def traceparent(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01"}


def client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, trust_env=False, timeout=60)


def body(max_tokens: int = 5, **fields: object) -> dict[str, object]:
    defaults = {"model": "course", "prompt": [300, 301, 302], "ignore_eos": True, "temperature": 0}
    return defaults | {"max_tokens": max_tokens} | fields


def by_name(spans: list[Span]) -> dict[str, Span]:
    """The spans of a trace in which each name occurs once."""
    names = [span.name for span in spans]
    assert len(set(names)) == len(names), names
    return {span.name: span for span in spans}


def has_server_span(spans: list[Span]) -> bool:
    """Whether the root has arrived; a server ends it last."""
    return any(span.parent_id == CLIENT_SPAN for span in spans)


def assert_phases_fill(request: Span, phases: dict[str, Span]) -> None:
    """Queue, prefill and decode are children of the request, follow each other and take as long as it does."""
    queue, prefill, decode = (phases[name] for name in PHASES)
    assert {span.parent_id for span in (queue, prefill, decode)} == {request.span_id}
    assert (queue.start, prefill.start, decode.start) == (request.start, queue.end, prefill.end)
    assert decode.end == request.end
    assert queue.start <= queue.end <= prefill.end <= decode.end


def cancelled_trace(leave: Callable[[str], None], wait: Callable[[str], list[Span]]) -> list[Span]:
    """The spans of a request whose client leaves; `leave` sends one with that trace id, `wait` returns its spans.

    A request may be complete before a server notices that its client has left: then another one is sent.
    """
    for _ in range(10):
        trace_id = new_trace_id()
        leave(trace_id)
        spans = wait(trace_id)
        if all(span.status == "ERROR" for span in spans if is_request(span)):
            return spans
    raise AssertionError("ten requests were complete before their clients had left")


def is_request(span: Span) -> bool:
    """Whether a span is that of a whole request, in a server or in an engine."""
    return span.parent_id == CLIENT_SPAN or span.name == "llm_request"
