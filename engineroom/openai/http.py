"""HTTP: request bodies of limited size, errors in OpenAI's format, and streams that end when their client leaves."""

from __future__ import annotations

import asyncio
import gc
import reprlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Send

from engineroom.openai.completion import IndexedDelta, describe
from engineroom.openai.fields import FieldError
from engineroom.openai.response import ErrorInfo, ErrorResponse
from engineroom.openai.text import TextDelta

MAX_BODY = 4 << 20  # bytes
ERROR_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 503: "unavailable"}
T = TypeVar("T")


class BoundedRequest(Request):
    """At most MAX_BODY bytes of strict JSON: UTF-8, finite numbers, no lone surrogates."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413, f"the request body is larger than {MAX_BODY} bytes.")
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the request body is not JSON: {error}") from None


class BoundedRoute(APIRoute):
    """A route that reads its requests as BoundedRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def bounded_handler(request: Request) -> Response:
            return await handler(BoundedRequest(request.scope, request.receive))

        return bounded_handler


class EventStream(StreamingResponse):
    """Server-sent events. Their generator is closed, however the response ends."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.events):
            await super().stream_response(send)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Exempt what was loaded before the start from garbage collection, as vLLM's servers do.

    Otherwise a full collection takes 0.2 s, and no stream gets a token meanwhile.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. If the client disconnects first, cancels `work` and raises HTTPException 499."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    work_task, disconnect_task = asyncio.create_task(work), asyncio.create_task(disconnected())
    try:
        await asyncio.wait((work_task, disconnect_task), return_when=asyncio.FIRST_COMPLETED)
        if not work_task.done():
            raise HTTPException(499, "the client closed the connection.")
        return work_task.result()
    finally:
        await _cancel(work_task, disconnect_task)


async def merge(streams: Sequence[AsyncGenerator[TextDelta]]) -> AsyncGenerator[IndexedDelta]:
    """The deltas of all streams as they arrive, each with the index of its stream. The first error ends all streams."""
    queue: asyncio.Queue[tuple[int, TextDelta | Exception]] = asyncio.Queue()

    async def forward(index: int, stream: AsyncGenerator[TextDelta]) -> None:
        try:
            async with aclosing(stream):
                async for delta in stream:
                    queue.put_nowait((index, delta))
        except Exception as error:  # noqa: BLE001 - the reader of the queue raises it
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(forward(index, stream)) for index, stream in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            index, delta = await queue.get()
            if isinstance(delta, Exception):
                raise delta
            if delta.finish_reason is not None:
                num_open -= 1
            yield index, delta
    finally:
        await _cancel(*tasks)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def error_response(status: int, error: ErrorResponse, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error.model_dump(), status, headers)


async def handle_backend_error(_: Request, error: Exception) -> JSONResponse:
    status, body = describe(error)
    return error_response(status, body, {"Retry-After": "1"} if status == 429 else None)


async def handle_http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)  # create_app registers it for nothing else
    error_type = "server_error" if error.status_code >= 500 else "invalid_request_error"
    info = ErrorInfo(message=str(error.detail), type=error_type, code=ERROR_CODES.get(error.status_code))
    return error_response(error.status_code, ErrorResponse(error=info), dict(error.headers or {}))


async def handle_validation_error(_: Request, error: Exception) -> JSONResponse:
    """Names the first invalid field, and everything that was expected of it."""
    assert isinstance(error, RequestValidationError)  # create_app registers it for nothing else
    errors = error.errors()
    cause = errors[0].get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return await handle_backend_error(_, cause)
    location = errors[0]["loc"]
    field = location[1] if len(location) > 1 else "body"
    messages = [f"{entry['msg']}." for entry in errors if field in entry["loc"][:2]]
    expected = " Or: ".join(dict.fromkeys(messages))
    message = f"{field}: {expected} Got: {reprlib.repr(errors[0]['input'])}."
    info = ErrorInfo(message=message, type="invalid_request_error", param=str(field))
    return error_response(400, ErrorResponse(error=info))
