"""vLLM's own spans, of a real vLLM on this machine's processor, in our collector.

vLLM 0.32 sends one span for each request, `llm_request`, from its arrival to its last token; the phases are attributes.
Its parent is the span that `traceparent` names. A refused request has no span, nor has one whose client leaves. The
start-up of all processes is one more trace, "Overall Loading".
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from engineroom.kit.process import Server
from engineroom.tracing.collector import Collector
from engineroom.tracing.span import Span
from engineroom.vllm.command import serve, trace_environment
from tests.engineroom.tracing.conftest import (
    CLIENT_SPAN,
    body,
    by_name,
    client,
    has_server_span,
    new_trace_id,
    traceparent,
)

LATENCIES = (
    "time_in_queue", "time_in_model_prefill", "time_in_model_decode", "time_in_model_inference", "time_to_first_token",
    "e2e",
)  # fmt: skip


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced_vllm(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEROOM_HOME", str(tmp_path_factory.mktemp("home")))
        server = serve("course", name="traced vllm", max_num_seqs=4, otlp_traces_endpoint=collector.url)
    with server:
        yield server


def request_span(server: Server, collector: Collector, **fields: object) -> tuple[httpx.Response, Span]:
    trace_id = new_trace_id()
    with client(server) as http:
        response = http.post("/v1/completions", json=body(**fields), headers=traceparent(trace_id))
    return response, by_name(collector.wait(trace_id, has_server_span))["llm_request"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("stream", [False, True])
def test_one_request_is_one_span(traced_vllm: Server, collector: Collector, stream: bool) -> None:
    response, span = request_span(traced_vllm, collector, max_tokens=6, stream=stream)
    assert response.status_code == 200
    assert (span.service, span.parent_id, span.status) == ("vllm", CLIENT_SPAN, "UNSET")
    assert span.attributes["gen_ai.usage.prompt_tokens"] == 3
    assert span.attributes["gen_ai.usage.completion_tokens"] == 6
    assert span.attributes["gen_ai.request.max_tokens"] == 6
    latencies = {name: span.attributes[f"gen_ai.latency.{name}"] for name in LATENCIES}
    inference = latencies["time_in_model_prefill"] + latencies["time_in_model_decode"]
    assert latencies["time_in_model_inference"] == pytest.approx(inference)


@pytest.mark.timeout(400)
def test_four_requests_at_a_time_do_not_mix(traced_vllm: Server, collector: Collector) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = threads.map(
            lambda length: request_span(traced_vllm, collector, max_tokens=length), range(5, 9)
        )
        assert [span.attributes["gen_ai.usage.completion_tokens"] for _, span in results] == [5, 6, 7, 8]


@pytest.mark.timeout(400)
def test_a_refused_request_has_no_span(traced_vllm: Server, collector: Collector) -> None:
    trace_id = new_trace_id()
    with client(traced_vllm) as http:
        response = http.post("/v1/completions", json=body(10**6), headers=traceparent(trace_id))
    assert response.status_code == 400
    request_span(traced_vllm, collector, max_tokens=2)  # it would arrive later
    assert not collector.spans(trace_id)


def test_start_up_is_a_trace_of_its_own(traced_vllm: Server, collector: Collector) -> None:
    (start_up,) = [span for span in collector.spans() if span.name == "Overall Loading"]
    assert not start_up.parent_id
    assert {"Load weights", "Allocate KV cache"} <= {span.name for span in collector.spans(start_up.trace_id)}


def test_variables_of_the_environment_are_set_for_tracing_only() -> None:
    assert trace_environment({}) == trace_environment({"otlp_traces_endpoint": None}) == {}
    variables = trace_environment({"otlp_traces_endpoint": "http://127.0.0.1:4318/v1/traces"})
    assert variables["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
