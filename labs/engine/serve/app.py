"""OpenAI's HTTP API before anything that generates tokens: our executor here, a Triton server in a later lesson."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException

from labs.engine.runtime.async_executor import EngineStopped, QueueFull
from labs.engine.runtime.executor import Output
from labs.engine.runtime.sampling import SamplingParams
from labs.engine.runtime.scheduler import RequestError
from labs.engine.serve import http
from labs.engine.serve.answers import Answer, Parts
from labs.engine.serve.metrics import Load, Metrics
from labs.engine.serve.protocol import (
    Card,
    Cards,
    ChatRequest,
    Completion,
    CompletionRequest,
    Failure,
    SamplingRequest,
    StreamOptions,
)
from labs.engine.serve.text import Piece, Vocabulary, pieces

COMPLETION_TOKENS = 16  # OpenAI's default of max_tokens in /v1/completions
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Failure}, "5XX": {"model": Failure}}
ANSWERS = ERRORS | {200: {"model": Completion, "content": {"text/event-stream": {}}}}


class Backend(Protocol):
    """What generates tokens. `generate` raises RequestError, QueueFull or EngineStopped before its first output, and
    closing it cancels the request. `problem` says why no answer can be expected now, None if all is well."""

    def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncGenerator[Output]: ...
    def load(self) -> Load: ...
    def problem(self) -> str | None: ...


def create_app(backend: Backend, vocabulary: Vocabulary, name: str, max_seq_len: int) -> FastAPI:
    """The server for one model that is called `name`; prompt and answer may have `max_seq_len` tokens together."""
    app = FastAPI(title=name, description=__doc__, responses=ERRORS)
    app.router.route_class = http.BoundedRoute
    for kind in (RequestError, QueueFull, EngineStopped, Exception):
        app.add_exception_handler(kind, http.refused)
    app.add_exception_handler(RequestValidationError, http.invalid)
    app.add_exception_handler(StarletteHTTPException, http.http_error)
    metrics, created = Metrics(backend.load, name), int(time.time())

    def known(body: SamplingRequest) -> None:
        if body.model != name:
            problem = f"The model {body.model!r} does not exist; this server has {name!r}."
            raise HTTPException(404, problem)

    def start(body: SamplingRequest, prompt: list[int], max_tokens: int) -> AsyncGenerator[Piece]:
        params = body.params(max_tokens, vocabulary.end_ids, vocabulary.defaults)
        if body.top and not params.greedy:
            raise RequestError("the likeliest token's log-probability is known at temperature 0 only.")
        parts = pieces(backend.generate(prompt, params), vocabulary, body.stops, params.logprobs)
        return metrics.watch(parts, len(prompt))

    async def answer(
        request: Request, body: SamplingRequest, prompts: list[list[int]], max_tokens: int
    ) -> Response:
        parts = http.merge([start(body, prompt, max_tokens) for prompt in prompts])
        made = Answer(name, isinstance(body, ChatRequest), body.top, sum(map(len, prompts)))
        if not body.stream:
            whole = made.whole(await http.unless_gone(request, collect(parts)))
            return Response(whole, media_type="application/json")
        first = await http.unless_gone(request, next_of(parts))
        return http.EventStream(made.events(first, parts, body.stream_options or StreamOptions()))

    @app.post("/v1/completions", responses=ANSWERS)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        known(body)
        prompts = await asyncio.to_thread(lambda: [vocabulary.encode(prompt) for prompt in body.prompts])
        return await answer(request, body, prompts, body.max_tokens or COMPLETION_TOKENS)

    @app.post("/v1/chat/completions", responses=ANSWERS)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        known(body)
        messages = [{"role": one.role, "content": one.text} for one in body.messages]
        prompt = await asyncio.to_thread(vocabulary.chat, messages)
        left = max(1, max_seq_len - len(prompt))
        return await answer(request, body, [prompt], body.max_completion_tokens or body.max_tokens or left)

    @app.get("/v1/models")
    async def models() -> Cards:
        return Cards(data=[Card(id=name, created=created, max_model_len=max_seq_len)])

    @app.get("/health")
    async def health() -> dict[str, str]:
        if why := backend.problem():
            raise HTTPException(503, why)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    schemas = app.openapi()["components"]["schemas"]  # made once and kept
    for request in (CompletionRequest, ChatRequest):
        schemas[request.__name__]["properties"]["model"]["enum"] = [name]
    return app


async def collect(parts: Parts) -> list[tuple[int, Piece]]:
    return [part async for part in parts]


async def next_of(parts: Parts) -> tuple[int, Piece]:
    return await anext(parts)
