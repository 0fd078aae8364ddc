"""`engineroom serve --otlp_traces_endpoint`: the spans of one request, read from a real collector."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from engineroom.kit.process import Server
from engineroom.tracing.backend import PHASES
from engineroom.tracing.collector import Collector
from engineroom.tracing.span import Span
from engineroom.tracing.waterfall import waterfall
from tests.engineroom.tracing.conftest import (
    CLIENT_SPAN,
    assert_phases_fill,
    body,
    by_name,
    cancelled_trace,
    client,
    has_server_span,
    new_trace_id,
    traceparent,
)

CHAT = {"messages": [{"role": "user", "content": "What is 12 + 30?"}]}


def trace(
    server: Server, collector: Collector, path: str, **fields: object
) -> tuple[httpx.Response, list[Span]]:
    """Send one request; return the response and the spans of its trace."""
    trace_id = new_trace_id()
    with client(server) as http:
        response = http.post(path, json=fields, headers=traceparent(trace_id))
    return response, collector.wait(trace_id, has_server_span)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_one_request_has_its_phases(server: Server, collector: Collector, path: str, stream: bool) -> None:
    fields = body(7, stream=stream)
    if path.endswith("chat/completions"):
        fields = {name: value for name, value in fields.items() if name != "prompt"} | CHAT
    response, spans = trace(server, collector, path, **fields)
    assert response.status_code == 200
    named = by_name(spans)
    assert sorted(named) == sorted([f"POST {path}", "llm_request", *PHASES])
    root, request = named[f"POST {path}"], named["llm_request"]
    assert root.parent_id == CLIENT_SPAN and request.parent_id == root.span_id
    assert root.start <= request.start and request.end <= root.end
    assert_phases_fill(request, named)
    assert {span.status for span in spans} == {"UNSET"} and {span.service for span in spans} == {"engine"}
    assert root.attributes["http.response.status_code"] == 200 and root.attributes["http.route"] == path
    assert root.attributes["gen_ai.operation.name"] == ("chat" if "chat" in path else "text_completion")
    assert [(row.name, row.depth) for row in waterfall(spans)] == [
        (root.name, 0),
        ("llm_request", 1),
        *((name, 2) for name in PHASES),
    ]


def test_attributes_say_what_the_response_says(server: Server, collector: Collector) -> None:
    response, spans = trace(server, collector, "/v1/completions", **body(6))
    document, attributes = response.json(), by_name(spans)["llm_request"].attributes
    usage = document["usage"]
    assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"] == 3
    assert attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"] == 6
    assert attributes["gen_ai.usage.prompt_tokens"] == 3 and attributes["gen_ai.usage.completion_tokens"] == 6
    assert (
        attributes["gen_ai.response.finish_reasons"]
        == [document["choices"][0]["finish_reason"]]
        == ["length"]
    )
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "course"
    assert attributes["gen_ai.request.max_tokens"] == 6 and attributes["gen_ai.request.temperature"] == 0


def test_latencies_are_those_of_the_spans(server: Server, collector: Collector) -> None:
    _, spans = trace(server, collector, "/v1/completions", **body(4))
    named = by_name(spans)
    request = named["llm_request"]
    seconds = {name: (named[name].end - named[name].start) / 1e9 for name in PHASES}
    first_token = dict(request.events)["first_token"]
    assert first_token == named["prefill"].end
    expected = {
        "time_in_queue": seconds["queue"],
        "time_in_model_prefill": seconds["prefill"],
        "time_in_model_decode": seconds["decode"],
        "time_in_model_inference": seconds["prefill"] + seconds["decode"],
        "time_to_first_token": (first_token - request.start) / 1e9,
        "e2e": (request.end - request.start) / 1e9,
    }
    latencies = {name: request.attributes[f"gen_ai.latency.{name}"] for name in expected}
    assert latencies == pytest.approx(expected, abs=1e-8)


def test_a_stop_string_is_no_cancellation(server: Server, collector: Collector) -> None:
    text = trace(server, collector, "/v1/completions", **body(40))[0].json()["choices"][0]["text"]
    response, spans = trace(server, collector, "/v1/completions", **body(40, stop=text[9:14]))
    assert response.json()["choices"][0]["finish_reason"] == "stop"
    request = by_name(spans)["llm_request"]
    assert request.attributes["gen_ai.response.finish_reasons"] == ["stop"] and request.status == "UNSET"
    assert request.attributes["gen_ai.usage.output_tokens"] == response.json()["usage"]["completion_tokens"]


def test_each_choice_and_each_prompt_has_its_own_spans(server: Server, collector: Collector) -> None:
    fields = body(4, prompt=[[300], [301, 302]], n=2, temperature=1)
    _, spans = trace(server, collector, "/v1/completions", **fields)
    requests = [span for span in spans if span.name == "llm_request"]
    assert sorted(span.attributes["gen_ai.usage.input_tokens"] for span in requests) == [1, 1, 2, 2]
    for request in requests:
        children = [span for span in spans if span.parent_id == request.span_id]
        assert_phases_fill(request, by_name(children))


def leave(server: Server, trace_id: str, stream: bool) -> None:
    """Leave a stream after its first chunk, or close the connection right after another request."""
    arguments = {"json": body(250, stream=stream), "headers": traceparent(trace_id)}
    with client(server) as http:
        if stream:
            with http.stream("POST", "/v1/completions", **arguments) as response:
                next(response.iter_lines())
            return
        request = http.build_request("POST", "/v1/completions", **arguments)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n".encode() + request.content)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves(server: Server, collector: Collector, stream: bool) -> None:
    spans = cancelled_trace(
        lambda trace_id: leave(server, trace_id, stream),
        lambda trace_id: collector.wait(trace_id, has_server_span),
    )
    (root,) = (span for span in spans if span.parent_id == CLIENT_SPAN)
    assert root.message == "the client closed the connection"
    requests = [span for span in spans if span.name == "llm_request"]
    assert requests or not stream  # without a stream, it may be cancelled before its generation begins
    for request in requests:
        assert (request.status, request.message) == ("ERROR", "the request was cancelled")
        assert request.attributes["gen_ai.response.finish_reasons"] == ["abort"]
        assert request.attributes["gen_ai.usage.output_tokens"] < 250
    phases = by_name([span for span in spans if span.name in PHASES])
    if stream:
        assert_phases_fill(requests[0], phases)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_has_the_error_s_message(
    server: Server, collector: Collector, stream: bool
) -> None:
    response, spans = trace(server, collector, "/v1/completions", **body(300, stream=stream))
    named = by_name(spans)
    message = response.json()["error"]["message"]
    assert response.status_code == 400 and sorted(named) == ["POST /v1/completions", "llm_request"]
    request = named["llm_request"]
    assert request.status == "ERROR" and request.message and request.message in message
    assert request.attributes["error.type"] == "ContextLengthError"
    root = named["POST /v1/completions"]
    assert root.attributes["http.response.status_code"] == 400 and root.status == "UNSET"


@pytest.mark.parametrize(
    ("fields", "status"), [({"model": "other"}, 404), ({"temperature": "hot"}, 400), ({"n": -1}, 400)]
)
def test_a_request_that_does_not_reach_the_engine(
    server: Server, collector: Collector, fields: dict[str, object], status: int
) -> None:
    response, spans = trace(server, collector, "/v1/completions", **body(**fields))
    assert [span.name for span in spans] == ["POST /v1/completions"]
    assert response.status_code == spans[0].attributes["http.response.status_code"] == status


def test_eight_requests_at_a_time_do_not_mix(server: Server, collector: Collector) -> None:
    trace_ids = [new_trace_id() for _ in range(8)]
    with client(server) as http, ThreadPoolExecutor(8) as threads:

        def send(index: int) -> httpx.Response:
            fields = body(10 + index, stream=index % 2 == 0, prompt=[300] * (index + 1))
            return http.post("/v1/completions", json=fields, headers=traceparent(trace_ids[index]))

        responses = list(threads.map(send, range(8)))
    assert [response.status_code for response in responses] == [200] * 8
    for index, trace_id in enumerate(trace_ids):
        named = by_name(collector.wait(trace_id, has_server_span))
        assert sorted(named) == sorted(["POST /v1/completions", "llm_request", *PHASES])
        request = named["llm_request"]
        assert request.attributes["gen_ai.usage.input_tokens"] == index + 1
        assert request.attributes["gen_ai.usage.output_tokens"] == 10 + index
        assert request.parent_id == named["POST /v1/completions"].span_id
        assert_phases_fill(request, named)


def test_headers_that_start_a_new_trace(server: Server, collector: Collector) -> None:
    """W3C's cases: malformed, absent, and several of them."""
    known = {span.trace_id for span in collector.spans()}
    trace_id = new_trace_id()
    header = traceparent(trace_id)["traceparent"]
    malformed = [
        [("traceparent", value)] for value in ("", "00", header.upper(), header + "-00", f"ff{header[2:]}")
    ]
    cases = [[], [("traceparent", header)] * 2, *malformed]
    with client(server) as http:
        for headers in cases:
            assert http.post("/v1/completions", json=body(1), headers=headers).status_code == 200
        sampled = new_trace_id()
        http.post("/v1/completions", json=body(1), headers=traceparent(sampled))
    collector.wait(sampled, has_server_span)  # a batch later than all of the others
    roots = [
        span for span in collector.spans() if span.trace_id not in known and span.name.startswith("POST")
    ]
    new_roots = [span for span in roots if span.trace_id != sampled]
    assert len({span.trace_id for span in new_roots}) == len(new_roots) == len(cases)
    assert all(span.trace_id != trace_id and not span.parent_id for span in new_roots)


def test_an_unsampled_trace_is_not_exported(server: Server, collector: Collector) -> None:
    unsampled, sampled = new_trace_id(), new_trace_id()
    with client(server) as http:
        headers = {"traceparent": f"00-{unsampled}-{CLIENT_SPAN}-00"}
        assert http.post("/v1/completions", json=body(1), headers=headers).status_code == 200
        http.post("/v1/completions", json=body(1), headers=traceparent(sampled))
    collector.wait(sampled, has_server_span)
    assert not collector.spans(unsampled)


def test_scrapes_and_health_checks_have_no_spans(server: Server, collector: Collector) -> None:
    trace_id, sampled = new_trace_id(), new_trace_id()
    with client(server) as http:
        for path in ("/health", "/metrics", "/v1/models"):
            assert http.get(path, headers=traceparent(trace_id)).status_code == 200
        http.post("/v1/completions", json=body(1), headers=traceparent(sampled))
    collector.wait(sampled, has_server_span)
    assert not collector.spans(trace_id)
