"""Add tracing to a server: its backend and its HTTP application stay as they are without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engineroom.engine.runtime.async_executor import Backend

if TYPE_CHECKING:  # these import OpenTelemetry
    from starlette.applications import Starlette

    from engineroom.tracing.backend import GenerateRemotely
    from engineroom.tracing.tracer import Tracing


def traced_backend(
    backend: Backend, tracing: Tracing | None, model: str, generate_remotely: GenerateRemotely | None = None
) -> Backend:
    """The backend with spans for each request; see TracedBackend. Without tracing, the backend itself."""
    if tracing is None:
        return backend
    from engineroom.tracing.backend import TracedBackend

    return TracedBackend(backend, tracing, model, generate_remotely)


def trace_app(app: Starlette, tracing: Tracing | None) -> None:
    """Give each request of a server a span, if there is tracing, and close it when the server ends."""
    if tracing is None:
        return
    from engineroom.tracing.middleware import TracingMiddleware

    app.add_middleware(TracingMiddleware, tracing=tracing)
