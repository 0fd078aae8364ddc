"""One request followed through the OpenAI frontend, Triton 2.51 and the engine in it, with a real Triton.

What Triton 2.51 does in its mode `opentelemetry`:
- It sends OTLP over HTTP as JSON only; OTEL_EXPORTER_OTLP_TRACES_PROTOCOL changes nothing (OpenTelemetry C++ 1.13).
- It reads `traceparent` from gRPC's metadata and from HTTP's headers, and traces such a request at any `rate`. It
  ignores the sampled flag.
- Its three spans are InferRequest, the model's name and `compute`, one below the other. InferRequest ends with the
  stream. The other two end when the model's program has accepted the request, as that program streams its responses.
- `request.trace().get_context()` in the program is a child of the model's span; so are the engine's spans.
- The models that tensorrt_llm_bls calls are not part of its trace.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from engineroom.engine.directory import EngineDir
from engineroom.kit.process import Server
from engineroom.tracing.backend import PHASES
from engineroom.tracing.collector import Collector
from engineroom.tracing.span import Span
from engineroom.tracing.waterfall import waterfall
from engineroom.triton.frontend import serve_openai
from engineroom.triton.server import Triton, serve, server_command
from tests.engineroom.tracing.conftest import (
    CLIENT_SPAN,
    assert_phases_fill,
    body,
    by_name,
    cancelled_trace,
    client,
    new_trace_id,
    traceparent,
)

TRITON_SPANS = [("triton", "InferRequest"), ("triton", "tensorrt_llm"), ("triton", "compute")]
ENGINE_SPANS = [("engine", "llm_request"), *(("engine", phase) for phase in PHASES)]
FRONTEND_SPANS = [("openai", "POST /v1/completions"), ("openai", "llm_request")]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_triton(
    repository: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEROOM_HOME", str(tmp_path_factory.mktemp("home")))
        triton = serve(repository, name="traced triton", otlp_traces_endpoint=collector.url)
    with triton:
        yield triton


@pytest.fixture(scope="module")
def traced_frontend(traced_triton: Triton, engine: EngineDir, collector: Collector) -> Iterator[Server]:
    options = {"served_model_name": "course", "otlp_traces_endpoint": collector.url}
    with serve_openai(traced_triton, engine.path, name="traced openai", **options) as server:
        yield server


def names(spans: list[Span]) -> list[tuple[str, str]]:
    return sorted((span.service, span.name) for span in spans)


def wait(collector: Collector, trace_id: str, expected: list[tuple[str, str]]) -> list[Span]:
    return collector.wait(trace_id, lambda spans: names(spans) == sorted(expected))


def post(server: Server, trace_id: str, **fields: object) -> httpx.Response:
    with client(server) as http:
        return http.post("/v1/completions", json=body(**fields), headers=traceparent(trace_id))


@pytest.mark.parametrize("stream", [False, True])
def test_one_trace_through_all_servers(traced_frontend: Server, collector: Collector, stream: bool) -> None:
    trace_id = new_trace_id()
    assert post(traced_frontend, trace_id, max_tokens=9, stream=stream).status_code == 200
    spans = wait(collector, trace_id, FRONTEND_SPANS + TRITON_SPANS + ENGINE_SPANS)
    rows = [(row.service, row.name, row.depth) for row in waterfall(spans)]
    chain = [*FRONTEND_SPANS, *TRITON_SPANS[:2]]
    assert rows[:4] == [(*entry, depth) for depth, entry in enumerate(chain)]
    assert {("engine", "llm_request", 4), ("triton", "compute", 4)} <= set(rows[4:])
    root = next(span for span in spans if span.parent_id == CLIENT_SPAN)
    assert (root.service, root.name) == FRONTEND_SPANS[0]
    engine_spans = by_name([span for span in spans if span.service == "engine"])
    assert_phases_fill(engine_spans["llm_request"], engine_spans)
    for request in (span for span in spans if span.name == "llm_request"):
        assert request.attributes["gen_ai.usage.output_tokens"] == 9
        assert request.attributes["gen_ai.usage.input_tokens"] == 3
        assert request.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert {span.status for span in spans} == {"UNSET"}


def test_an_error_of_the_engine_is_in_both_spans(traced_frontend: Server, collector: Collector) -> None:
    trace_id = new_trace_id()
    response = post(traced_frontend, trace_id, max_tokens=300)
    assert response.status_code == 400
    spans = wait(collector, trace_id, FRONTEND_SPANS + TRITON_SPANS + ENGINE_SPANS[:1])
    requests = [span for span in spans if span.name == "llm_request"]
    assert [span.status for span in requests] == ["ERROR", "ERROR"]
    assert all("max_seq_len is 256" in span.message for span in requests)


def test_a_client_that_leaves_ends_the_engine_s_span(traced_frontend: Server, collector: Collector) -> None:
    def leave(trace_id: str) -> None:
        arguments = {"json": body(240, stream=True), "headers": traceparent(trace_id)}
        with client(traced_frontend) as http, http.stream("POST", "/v1/completions", **arguments) as response:
            next(response.iter_lines())

    expected = FRONTEND_SPANS + TRITON_SPANS + ENGINE_SPANS
    spans = cancelled_trace(leave, lambda trace_id: wait(collector, trace_id, expected))
    requests = [span for span in spans if span.name == "llm_request"]
    assert [(span.status, span.message) for span in requests] == [("ERROR", "the request was cancelled")] * 2
    engine_spans = by_name([span for span in spans if span.service == "engine"])
    assert_phases_fill(engine_spans["llm_request"], engine_spans)


def test_eight_requests_at_a_time_do_not_mix(traced_frontend: Server, collector: Collector) -> None:
    trace_ids = [new_trace_id() for _ in range(8)]
    lengths = range(10, 18)
    with ThreadPoolExecutor(8) as threads:
        list(
            threads.map(
                lambda index: post(traced_frontend, trace_ids[index], max_tokens=lengths[index]), range(8)
            )
        )
    for trace_id, length in zip(trace_ids, lengths, strict=True):
        spans = wait(collector, trace_id, FRONTEND_SPANS + TRITON_SPANS + ENGINE_SPANS)
        requests = [span for span in spans if span.name == "llm_request"]
        assert [span.attributes["gen_ai.usage.output_tokens"] for span in requests] == [length] * 2


def test_triton_s_own_http_clients_can_send_a_traceparent(
    traced_triton: Triton, collector: Collector
) -> None:
    trace_id = new_trace_id()
    document = {"text_input": "One two three", "max_tokens": 3, "stream": False}
    url = f"{traced_triton.url}/v2/models/tensorrt_llm_bls/generate"
    response = httpx.post(url, json=document, headers=traceparent(trace_id), trust_env=False, timeout=60)
    assert response.status_code == 200
    bls = [("triton", name) for name in ("InferRequest", "tensorrt_llm_bls", "compute")]
    spans = wait(collector, trace_id, bls)
    assert [span.name for span in spans if span.parent_id == CLIENT_SPAN] == ["InferRequest"]


def test_an_ensemble_s_models_are_part_of_its_trace(traced_triton: Triton, collector: Collector) -> None:
    trace_id = new_trace_id()
    document = {"text_input": "One two three", "max_tokens": 3, "stream": False}
    url = f"{traced_triton.url}/v2/models/ensemble/generate"
    response = httpx.post(url, json=document, headers=traceparent(trace_id), trust_env=False, timeout=60)
    assert response.status_code == 200
    models = ("preprocessing", "tensorrt_llm", "postprocessing")
    triton_spans = [("triton", name) for name in ("InferRequest", "ensemble", *models, *["compute"] * 3)]
    spans = wait(collector, trace_id, triton_spans + ENGINE_SPANS)
    engine_spans = by_name([span for span in spans if span.service == "engine"])
    model_span = next(span for span in spans if span.name == "tensorrt_llm")
    assert engine_spans["llm_request"].parent_id == model_span.span_id
    assert_phases_fill(engine_spans["llm_request"], engine_spans)


def test_a_collector_that_never_answers_disturbs_nothing(
    repository: Path, engine: EngineDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests succeed, and the frontend ends at SIGTERM. Triton's exporter waits at the end: the kit kills it."""
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
        options = {"served_model_name": "course", "otlp_traces_endpoint": endpoint}
        with serve(repository, name="silent triton", otlp_traces_endpoint=endpoint) as triton:
            frontend = serve_openai(triton, engine.path, name="silent openai", **options)
            with frontend:
                for stream in (False, True):
                    assert post(frontend, new_trace_id(), stream=stream).status_code == 200
                frontend.stop(grace=20)
    assert frontend.exit_code == -signal.SIGTERM and not triton.server.alive()


def test_the_switch_is_off_by_default() -> None:
    arguments = (Path("/repository"), 8000, 8001, 8002)
    assert not any("trace" in argument for argument in server_command(*arguments))
    command = server_command(*arguments, otlp_traces_endpoint="http://127.0.0.1:4318/v1/traces")
    assert "--trace-config=opentelemetry,url=http://127.0.0.1:4318/v1/traces" in command
