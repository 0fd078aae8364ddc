"""The HTTP side of things: bodies with a bound, errors in OpenAI's form, streams that end when their client leaves."""

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

from engineroom.openai.completion import Parts, describe
from engineroom.openai.protocol import Failure, Problem
from engineroom.openai.text import Piece

MAX_BODY = 4 << 20  # bytes
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 503: "unavailable"}
T = TypeVar("T")


class BoundedRequest(Request):
    """At most MAX_BODY bytes of JSON, strictly: UTF-8, finite numbers, no half of a surrogate pair."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            data = bytearray()
            async for piece in self.stream():
                data += piece
                if len(data) > MAX_BODY:
                    raise HTTPException(413, f"the request body is larger than {MAX_BODY} bytes.")
            self._body = bytes(data)
        return self._body

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"the request body is not JSON: {error}") from None


class BoundedRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handler(BoundedRequest(request.scope, request.receive))

        return bounded


class EventStream(StreamingResponse):
    """Server-sent events; whatever ends the response also closes their source."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.events = events

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.events):
            await super().stream_response(send)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """What the libraries made while they loaded stays, so the garbage collector need not look at it again: a full
    collection takes 0.2 s otherwise, in which no stream gets a token. vLLM's servers freeze their heaps too.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise HTTPException(499, "the client closed the connection.")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def merge(streams: Sequence[AsyncGenerator[Piece]]) -> Parts:
    """The pieces of all streams as they come, each with the number of its stream. The first error ends all."""
    queue: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()

    async def pump(index: int, stream: AsyncGenerator[Piece]) -> None:
        try:
            async with aclosing(stream):
                async for piece in stream:
                    queue.put_nowait((index, piece))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(*one)) for one in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            index, piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece.finish_reason is not None
            yield index, piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def failed(status: int, failure: Failure, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(failure.model_dump(), status, headers)


async def refused(_: Request, error: Exception) -> JSONResponse:
    status, failure = describe(error)
    return failed(status, failure, {"Retry-After": "1"} if status == 429 else None)


async def http_error(_: Request, error: StarletteHTTPException) -> JSONResponse:
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    problem = Problem(message=str(error.detail), type=kind, code=CODES.get(error.status_code))
    return failed(error.status_code, Failure(error=problem), dict(error.headers or {}))


async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Names the first field that is wrong and everything that was expected of it."""
    found = error.errors()
    field = found[0]["loc"][1] if len(found[0]["loc"]) > 1 else "body"
    about = [one for one in found if field in one["loc"][:2]]
    wanted = " Or: ".join(dict.fromkeys(f"{one['msg']}." for one in about))
    message = f"{field}: {wanted} Got: {reprlib.repr(found[0]['input'])}."
    problem = Problem(message=message, type="invalid_request_error", param=str(field))
    return failed(400, Failure(error=problem))
