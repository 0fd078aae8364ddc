"""The spans of one service: how they are started and exported, and how the trace context travels.

The trace context has W3C's form, the headers `traceparent` and `tracestate` (w3.org/TR/trace-context).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

SCHEDULE_DELAY = 500  # milliseconds between two exports; OpenTelemetry's default, 5000, is long in a notebook
SHUTDOWN_SECONDS = 1  # how long the last export may delay the end of a server
OFFSET = time.time_ns() - time.perf_counter_ns()
PROPAGATOR = TraceContextTextMapPropagator()


def nanoseconds(seconds: float) -> int:
    """Nanoseconds since 1970 of a time of time.perf_counter: all spans of a process have the same, monotonic clock."""
    return OFFSET + round(seconds * 1e9)


def now() -> int:
    return nanoseconds(time.perf_counter())


class Tracing:
    """Starts the spans of one service, and exports them to a collector in a thread of its own.

    A collector that does not answer costs spans, never a request: at most 2048 spans wait for it, the newest ones.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SCHEDULE_DELAY))
        self._tracer = self._provider.get_tracer("engineroom")

    def start_span(
        self,
        name: str,
        start: int,
        attributes: Mapping[str, AttributeValue],
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """Start a span at `start`, in nanoseconds since 1970. Without `parent`, its parent is the current span."""
        return self._tracer.start_span(name, parent, kind, attributes, start_time=start)

    def close(self) -> None:
        """Export what is left, for at most SHUTDOWN_SECONDS."""
        thread = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        thread.start()
        thread.join(SHUTDOWN_SECONDS)


def remote_context(headers: Mapping[str, list[str]]) -> Context:
    """The trace context that a client has sent, empty where its headers are absent or malformed.

    `headers`: all values of each header, by its name in lower case. As W3C requires, a malformed `traceparent`, or
    several of them, start a new trace.
    """
    if len(headers.get("traceparent", ())) != 1:
        return Context()
    return PROPAGATOR.extract(headers, Context())


def attach_headers(headers: Mapping[str, str]) -> None:
    """Make the trace context of these headers that of the current contextvars.Context, such as a new task's."""
    attach(remote_context({name.lower(): [value] for name, value in headers.items()}))


def trace_headers(span: Span) -> dict[str, str]:
    """The headers that tell another server that its spans are children of `span`."""
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers, trace.set_span_in_context(span))
    return headers
