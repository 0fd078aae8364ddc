"""Spans as OTLP sends them over HTTP: protobuf from Python's exporter, JSON from Triton's.

The source is opentelemetry.io/docs/specs/otlp.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PROTOBUF, JSON = "application/x-protobuf", "application/json"
# The last two: protobuf's parser expects an object in many places without a check.
UNREADABLE = (DecodeError, json_format.ParseError, RecursionError, TypeError, AttributeError)
IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class Span:
    """One span. `start` and `end` are in nanoseconds since 1970; the ids are in hexadecimal, as in `traceparent`.

    `parent_id` is empty for the root of a trace. `status` is "UNSET", "OK" or "ERROR"; `message` explains an error.
    `events` has the name and the time of each event.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, int], ...]
    status: str
    message: str


def decode(body: bytes, content_type: str) -> list[Span]:
    """The spans of one export, of content type PROTOBUF or JSON. Raises ValueError for another body."""
    try:
        if content_type == PROTOBUF:
            request = ExportTraceServiceRequest.FromString(body)
        else:
            document = json.loads(body, object_hook=_with_base64_ids)
            request = json_format.ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except UNREADABLE as error:
        raise ValueError(str(error)) from None
    return list(_spans(request))


def _with_base64_ids(fields: dict[str, Any]) -> dict[str, Any]:
    """A JSON object of OTLP, whose ids are in hexadecimal, as protobuf's JSON format has bytes."""
    for name in IDS:
        if isinstance(fields.get(name), str):
            fields[name] = base64.b64encode(bytes.fromhex(fields[name])).decode()
    return fields


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource_spans in request.resource_spans:
        resource = {entry.key: _value(entry.value) for entry in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _span(str(resource.get("service.name", "")), span)


def _span(service: str, span: SpanMessage) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={entry.key: _value(entry.value) for entry in span.attributes},
        events=tuple((event.name, event.time_unix_nano) for event in span.events),
        status=STATUSES.get(span.status.code, "UNSET"),
        message=span.status.message,
    )


STATUSES = {
    Status.STATUS_CODE_UNSET: "UNSET",
    Status.STATUS_CODE_OK: "OK",
    Status.STATUS_CODE_ERROR: "ERROR",
}


def _value(value: AnyValue) -> Any:
    """The Python value of an attribute."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(element) for element in value.array_value.values]
    if kind == "kvlist_value":
        return {entry.key: _value(entry.value) for entry in value.kvlist_value.values}
    return getattr(value, kind)
