"""How traced servers end, how a failed step ends a trace, and whose stamps spans have; all within this process."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi.testclient import TestClient

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from engineroom.tracing import tracer
from engineroom.tracing.backend import PHASES
from engineroom.tracing.collector import Collector
from engineroom.tracing.instrument import trace_app, traced_backend
from engineroom.tracing.switch import start_tracing
from tests.engineroom.tracing.conftest import assert_phases_fill, body, by_name, new_trace_id, traceparent


def test_a_server_sends_its_last_spans_when_it_ends(
    executor: AsyncExecutor, vocabulary: Vocabulary, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracer, "SCHEDULE_DELAY", 1e9)  # milliseconds: nothing is sent before the end
    tracing = start_tracing(collector.url, "ending")
    app = create_app(traced_backend(executor, tracing, "course"), vocabulary, "course", 256)
    trace_app(app, tracing)
    trace_id = new_trace_id()
    with TestClient(app) as http:
        assert http.post("/v1/completions", json=body(3), headers=traceparent(trace_id)).status_code == 200
        assert not collector.spans(trace_id)
    assert len(collector.spans(trace_id)) == 2 + len(PHASES)


class FailingExecutor(Executor):
    """Its model runner fails in the step after the third token."""

    def step(self) -> list[tuple[Request, TokenOutput]]:
        if self.num_steps == 3:
            raise MemoryError("no memory for this step")
        return super().step()


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_step_is_an_error_of_the_server(
    engine: EngineDir, vocabulary: Vocabulary, collector: Collector, stream: bool
) -> None:
    executor = AsyncExecutor(FailingExecutor(engine, KvCacheConfig(max_tokens=512)))
    tracing = start_tracing(collector.url, "failing")
    app = create_app(traced_backend(executor, tracing, "course"), vocabulary, "course", 256)
    trace_app(app, tracing)
    trace_id = new_trace_id()
    with TestClient(app, raise_server_exceptions=False) as http:
        response = http.post("/v1/completions", json=body(20, stream=stream), headers=traceparent(trace_id))
    executor.close()
    named = by_name(collector.spans(trace_id))
    root, request = named["POST /v1/completions"], named["llm_request"]
    assert (request.status, request.message) == ("ERROR", "no memory for this step")
    assert request.attributes["error.type"] == "MemoryError"
    assert request.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert_phases_fill(request, named)
    assert root.attributes["http.response.status_code"] == response.status_code
    is_known = not stream  # a stream has its status already
    assert response.status_code == (500 if is_known else 200)
    assert (root.status, root.message) == (
        ("ERROR", "no memory for this step") if is_known else ("UNSET", "")
    )


def test_a_stopped_engine_is_an_error_of_the_server(
    engine: EngineDir, vocabulary: Vocabulary, collector: Collector
) -> None:
    executor = AsyncExecutor(Executor(engine, KvCacheConfig(max_tokens=512)))
    executor.close()
    tracing = start_tracing(collector.url, "stopped")
    app = create_app(traced_backend(executor, tracing, "course"), vocabulary, "course", 256)
    trace_app(app, tracing)
    trace_id = new_trace_id()
    with TestClient(app) as http:
        response = http.post("/v1/completions", json=body(3), headers=traceparent(trace_id))
    assert response.status_code == 503
    named = by_name(collector.spans(trace_id))
    assert sorted(named) == ["POST /v1/completions", "llm_request"]
    assert {span.status for span in named.values()} == {"ERROR"}
    assert named["POST /v1/completions"].attributes["error.type"] == "503"
    assert named["llm_request"].message == "the engine was shut down"


def test_the_stamps_are_those_of_the_engine(executor: AsyncExecutor, collector: Collector) -> None:
    tracing = start_tracing(collector.url, "stamps")
    backend = traced_backend(executor, tracing, "stamps")

    async def generate() -> list[TokenOutput]:
        return [output async for output in backend.generate([300, 301], SamplingParams(max_tokens=6))]

    outputs = asyncio.run(generate())
    tracing.close()
    named = by_name([span for span in collector.spans() if span.service == "stamps"])
    read_times = [tracer.nanoseconds(output.read_time) for output in outputs]
    assert named["queue"].end == tracer.nanoseconds(outputs[0].metrics.first_scheduled_time)
    assert named["llm_request"].events == (("first_token", read_times[0]),)
    assert (named["prefill"].end, named["decode"].end) == (read_times[0], read_times[-1])
    assert named["llm_request"].end == read_times[-1]


def test_a_request_that_the_server_cancels(
    executor: AsyncExecutor, vocabulary: Vocabulary, collector: Collector
) -> None:
    """As at the end of a server that waits no longer: there is no response at all."""
    tracing = start_tracing(collector.url, "cancelling")
    app = create_app(traced_backend(executor, tracing, "course"), vocabulary, "course", 256)
    trace_app(app, tracing)
    trace_id = new_trace_id()

    async def post_and_cancel() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as http:
            post = http.post("/v1/completions", json=body(250), headers=traceparent(trace_id))
            task = asyncio.create_task(post)
            while not executor.stats().num_running_requests and not task.done():
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(post_and_cancel())
    tracing.close()
    named = by_name(collector.spans(trace_id))
    assert {span.status for name, span in named.items() if name not in PHASES} == {"ERROR"}
    root = named["POST /v1/completions"]
    assert root.attributes["error.type"] == "cancelled" and "http.response.status_code" not in root.attributes
