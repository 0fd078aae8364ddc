"""The server span of each HTTP request, with the attributes of OpenTelemetry's conventions for HTTP servers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engineroom.tracing.tracer import Tracing, now, remote_context

OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
CLIENT_CLOSED = 499  # the status of engineroom/openai for a request whose client has left


class TracingMiddleware:
    """Traces each POST below /v1, and closes `tracing` when the application ends."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app, self.tracing = app, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing(send))
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            await self._trace(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = self._start(scope)
        response = _Response(send)
        token = attach(trace.set_span_in_context(span))
        try:
            await self.app(scope, receive, response.send)
        except Exception as error:
            response.status, response.message = response.status or 500, str(error)
            raise
        finally:
            detach(token)
            _end(span, response)

    def _start(self, scope: Scope) -> Span:
        headers: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in scope["headers"]:
            headers[name.decode("latin-1").lower()].append(value.decode("latin-1"))
        path = scope["path"]
        attributes = {"http.request.method": "POST", "url.path": path, "url.scheme": scope["scheme"]}
        if path in OPERATIONS:
            attributes |= {"http.route": path, "gen_ai.operation.name": OPERATIONS[path]}
        name = f"POST {path}" if path in OPERATIONS else "POST"
        return self.tracing.start_span(name, now(), attributes, remote_context(headers), SpanKind.SERVER)

    def _closing(self, send: Send) -> Send:
        """A `send` that closes `tracing` before the server hears that the application has ended."""

        async def send_or_close(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await asyncio.to_thread(self.tracing.close)
            await send(message)

        return send_or_close


class _Response:
    """Passes a response on, and records its status and whether it was sent completely."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.message: str | None = None  # of an error that the application has not handled
        self.is_complete = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.is_complete = not message.get("more_body", False)
        await self._send(message)


def _end(span: Span, response: _Response) -> None:
    """End the span. By the conventions a status of 5xx is the server's error, and one of 4xx is not."""
    if response.status is not None:
        span.set_attribute("http.response.status_code", response.status)
    if response.status == CLIENT_CLOSED or (response.status == 200 and not response.is_complete):
        span.set_attribute("error.type", "cancelled")
        span.set_status(Status(StatusCode.ERROR, "the client closed the connection"))
    elif response.status is None or response.status >= 500:
        span.set_attribute("error.type", str(response.status or "cancelled"))
        span.set_status(Status(StatusCode.ERROR, response.message))
    span.end(now())
