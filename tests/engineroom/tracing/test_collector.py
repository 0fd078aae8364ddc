"""The collector: OTLP from OpenTelemetry's own exporter and from Triton's JSON, bad bodies, and a clean end."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import zlib

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.trace import StatusCode

from engineroom.kit.ports import free_port
from engineroom.tracing.collector import Collector, _Handler
from engineroom.tracing.span import JSON, PROTOBUF, Span, decode
from engineroom.tracing.tracer import Tracing, now

IDS = st.binary(min_size=8, max_size=8).filter(any)
TIMES = st.integers(0, 2**63)
VALUES = st.one_of(st.text(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
ATTRIBUTES = st.dictionaries(st.text(min_size=1), VALUES | st.lists(VALUES, max_size=3), max_size=3)
STATUSES = st.sampled_from(["UNSET", "OK", "ERROR"])
SPANS = st.builds(
    Span,
    service=st.text(),
    name=st.text(),
    trace_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    span_id=IDS.map(bytes.hex),
    parent_id=st.just("") | IDS.map(bytes.hex),
    start=TIMES,
    end=TIMES,
    attributes=ATTRIBUTES,
    events=st.lists(st.tuples(st.text(), TIMES), max_size=2).map(tuple),
    status=STATUSES,
    message=st.text(),
)


def any_value(value: object) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(element) for element in value]))
    kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
    return AnyValue(**{kinds[type(value)]: value})


def resource_spans(span: Span) -> ResourceSpans:
    message = SpanMessage(
        name=span.name,
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        start_time_unix_nano=span.start,
        end_time_unix_nano=span.end,
        attributes=[KeyValue(key=key, value=any_value(value)) for key, value in span.attributes.items()],
        events=[SpanMessage.Event(name=name, time_unix_nano=time) for name, time in span.events],
        status=Status(code=Status.StatusCode.Value(f"STATUS_CODE_{span.status}"), message=span.message),
    )
    resource = Resource(attributes=[KeyValue(key="service.name", value=any_value(span.service))])
    return ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[message])])


def protobuf_body(spans: list[Span]) -> bytes:
    request = ExportTraceServiceRequest(resource_spans=[resource_spans(span) for span in spans])
    return request.SerializeToString()


def json_body(spans: list[Span]) -> bytes:
    """OTLP's JSON: protobuf's, but with ids in hexadecimal and enumerations as numbers."""
    request = ExportTraceServiceRequest(resource_spans=[resource_spans(span) for span in spans])
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource in document.get("resourceSpans", []):
        for span in resource["scopeSpans"][0]["spans"]:
            for name in span.keys() & {"traceId", "spanId", "parentSpanId"}:
                span[name] = base64.b64decode(span[name]).hex()
    return json.dumps(document).encode()


@given(st.lists(SPANS, max_size=4))
def test_spans_survive_both_encodings(spans: list[Span]) -> None:
    assert decode(protobuf_body(spans), PROTOBUF) == spans
    assert decode(json_body(spans), JSON) == spans


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from([PROTOBUF, JSON]))
def test_an_unreadable_body_is_a_value_error(body: bytes, content_type: str) -> None:
    try:
        assert isinstance(decode(body, content_type), list)
    except ValueError as error:
        assert str(error)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda value: (
        st.lists(value, max_size=2)
        | st.dictionaries(st.sampled_from(["resourceSpans", "scopeSpans", "spans", "traceId", "name"]), value)
    ),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_json_of_another_form_is_a_value_error(value: object) -> None:
    try:
        assert isinstance(decode(json.dumps(value).encode(), JSON), list)
    except ValueError as error:
        assert str(error)


SPAN = Span("s", "n", "1" * 32, "2" * 16, "", 1, 2, {}, (), "UNSET", "")
BODY = protobuf_body([SPAN])


def post(collector: Collector, body: bytes = BODY, path: str | None = None, **headers: str) -> httpx.Response:
    url = collector.url if path is None else collector.url.replace("/v1/traces", path)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url, content=body, headers={"Content-Type": PROTOBUF} | names, trust_env=False)


def test_encodings_of_the_body() -> None:
    bodies = {"identity": BODY, "gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY)}
    for encoding, body in bodies.items():
        with Collector() as collector:
            response = post(collector, body, Content_Encoding=encoding)
            assert (
                response.status_code == 200
                and ExportTraceServiceRequest.FromString(response.content) is not None
            )
            assert collector.spans() == [SPAN]


def test_a_repeated_export_counts_once() -> None:
    with Collector() as collector:
        assert [post(collector).status_code for _ in range(2)] == [200, 200]
        assert collector.spans() == collector.spans(SPAN.trace_id) == [SPAN] and not collector.spans("3" * 32)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"path": "/v1/metrics"}, 404),
        ({"path": "/"}, 404),
        ({"Content_Type": "text/plain"}, 415),
        ({"body": b"\xff"}, 400),
        ({"body": b"{", "Content_Type": JSON}, 400),
        ({"Content_Encoding": "br"}, 400),
        ({"Content_Encoding": "gzip"}, 400),
        ({"Content_Encoding": "deflate"}, 400),
        ({"body": gzip.compress(BODY)[:-9], "Content_Encoding": "gzip"}, 400),
    ],
)
def test_a_bad_export_is_answered_and_the_next_one_received(arguments: dict[str, str], status: int) -> None:
    with Collector() as collector:
        assert post(collector, **arguments).status_code == status and not collector.spans()
        assert post(collector).status_code == 200 and collector.spans() == [SPAN]


@pytest.mark.parametrize("length", ["-1", "many", str(1 << 40)])
def test_a_content_length_out_of_range(length: str) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {length}\r\n\r\n"
    with Collector() as collector:
        address = ("127.0.0.1", httpx.URL(collector.url).port)
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode())
            assert b" 400 " in connection.recv(1000)


def test_opentelemetry_s_own_exporter() -> None:
    with Collector() as collector:
        tracing = Tracing(collector.url, "service")
        parent = tracing.start_span("parent", now(), {"list": ["a", "b"], "float": 0.5})
        parent.set_status(StatusCode.ERROR, "broken")
        parent.end(now())
        tracing.close()
        (span,) = collector.spans()
    assert (span.service, span.name, span.status, span.message) == ("service", "parent", "ERROR", "broken")
    assert span.attributes == {"list": ["a", "b"], "float": 0.5} and span.start <= span.end


def test_stop_leaves_no_thread_and_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "timeout", None)  # no time limit ends a connection
    port, threads = free_port(), set(threading.enumerate())
    for _ in range(2):  # the port is free again
        collector = Collector(port)
        with socket.create_connection(
            ("127.0.0.1", port)
        ) as connection:  # a client that sends no complete request
            connection.sendall(b"POST /v1/traces HTTP/1.1\r\n")
            post(collector)  # the first connection has its thread before the second one
            collector.stop()
            assert set(threading.enumerate()) == threads
        with pytest.raises(httpx.ConnectError):
            post(collector)
        assert collector.spans() == [SPAN]


def test_a_port_in_use_is_an_error() -> None:
    with Collector() as collector, pytest.raises(OSError, match="in use"):
        Collector(httpx.URL(collector.url).port)


def test_waiting_for_a_trace_that_does_not_come_names_its_spans() -> None:
    with Collector() as collector:
        post(collector)
        with pytest.raises(
            TimeoutError, match=r"1111 is not complete after 0.01 s; it has the spans \['n'\]"
        ):
            collector.wait(SPAN.trace_id, lambda spans: len(spans) == 2, timeout=0.01)
