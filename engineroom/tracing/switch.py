"""Tracing is off unless a collector's address is given; this module imports nothing of OpenTelemetry before that."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engineroom.kit.errors import UserError

if TYPE_CHECKING:
    from engineroom.tracing.tracer import Tracing

OPTION = "--otlp_traces_endpoint"  # vLLM's name
ENVIRONMENT_VARIABLE = "ENGINEROOM_OTLP_TRACES_ENDPOINT"  # of the Python programs inside Triton
HELP = "Send OpenTelemetry spans there (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces."
EXAMPLE = "http://127.0.0.1:4318/v1/traces"


class TracingError(UserError, ValueError):
    """Tracing cannot be switched on; the message says what to do."""


def start_tracing(endpoint: str | None, service: str) -> Tracing | None:
    """Export spans of the service named `service` to the collector at `endpoint`. None, the default, means no tracing.

    Raises TracingError for an address that is no HTTP URL with a path, and where OpenTelemetry is not installed. That a
    collector answers is not required.
    """
    if endpoint is None:
        return None
    check_endpoint(endpoint)
    try:
        from engineroom.tracing.tracer import Tracing
    except ImportError as error:
        raise TracingError(
            f"{OPTION} requires OpenTelemetry: {error}. Install it with `pip install 'engineroom[tracing]'`."
        ) from None
    return Tracing(endpoint, service)


def check_endpoint(endpoint: str) -> None:
    """Raises TracingError, unless `endpoint` is an HTTP URL with a host, a valid port and a path."""
    problem = _problem(endpoint)
    if problem:
        raise TracingError(f"{OPTION} {endpoint!r}: {problem}. Give the whole address, such as {EXAMPLE}.")


def _problem(endpoint: str) -> str | None:
    if not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        return "expected ASCII characters without spaces"
    try:
        url = urlsplit(endpoint)
        port = url.port
    except ValueError as error:
        return str(error)
    if url.scheme not in ("http", "https"):
        return "expected http:// or https://; OTLP over gRPC is not supported"
    if not url.hostname:
        return "expected a host"
    if port == 0:
        return "expected a port from 1 to 65535"
    return None if url.path.strip("/") else "expected a path, which is /v1/traces on most collectors"
