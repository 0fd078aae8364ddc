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

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.openai import http
from engineroom.openai.completion import Answer, Parts
from engineroom.openai.metrics import Load, Metrics
from engineroom.openai.protocol import (
    Card,
    Cards,
    ChatRequest,
    Completion,
    CompletionRequest,
    Failure,
    SamplingRequest,
    StreamOptions,
)
from engineroom.openai.text import Piece, Vocabulary, pieces

COMPLETION_TOKENS = 16  # OpenAI's default of max_tokens in /v1/completions
ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Failure}, "5XX": {"model": Failure}}
ANSWERS = ERRORS | {200: {"model": Completion, "content": {"text/event-stream": {}}}}


class Backend(Protocol):
    """What generates tokens. `generate` raises RequestError, QueueFull or EngineStopped before its first output, and
    closing it cancels the request. `problem` says why no answer can be expected now, None if all is well."""

    def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncGenerator[Output]: ...
    def load(self) -> Load: ...
    def problem(self) -> str | None: ...


class Service:
    """The answers of one model that is called `name`; prompt and answer may have `max_seq_len` tokens together."""

    def __init__(self, backend: Backend, vocabulary: Vocabulary, name: str, max_seq_len: int) -> None:
        self.backend, self.vocabulary, self.name, self.max_seq_len = backend, vocabulary, name, max_seq_len
        self._metrics, self._created = Metrics(backend.load, name), int(time.time())

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        self._known(body)
        encode = self.vocabulary.encode
        prompts = await asyncio.to_thread(lambda: [encode(prompt) for prompt in body.prompts])
        return await self._answer(request, body, prompts, body.max_tokens or COMPLETION_TOKENS)

    async def chat_completions(self, body: ChatRequest, request: Request) -> Response:
        self._known(body)
        messages = [{"role": one.role, "content": one.text} for one in body.messages]
        prompt = await asyncio.to_thread(self.vocabulary.chat, messages)
        left = max(1, self.max_seq_len - len(prompt))
        return await self._answer(
            request, body, [prompt], body.max_completion_tokens or body.max_tokens or left
        )

    async def models(self) -> Cards:
        return Cards(data=[Card(id=self.name, created=self._created, max_model_len=self.max_seq_len)])

    async def health(self) -> dict[str, str]:
        if why := self.backend.problem():
            raise HTTPException(503, why)
        return {"status": "ready"}

    async def metrics(self) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def _known(self, body: SamplingRequest) -> None:
        if body.model != self.name:
            problem = f"The model {body.model!r} does not exist; this server has {self.name!r}."
            raise HTTPException(404, problem)

    async def _answer(
        self, request: Request, body: SamplingRequest, prompts: list[list[int]], max_tokens: int
    ) -> Response:
        parts = http.merge([self._start(body, prompt, max_tokens) for prompt in prompts])
        made = Answer(self.name, isinstance(body, ChatRequest), body.top, sum(map(len, prompts)))
        if not body.stream:
            whole = made.whole(await http.unless_gone(request, collect(parts)))
            return Response(whole, media_type="application/json")
        first = await http.unless_gone(request, next_of(parts))
        return http.EventStream(made.events(first, parts, body.stream_options or StreamOptions()))

    def _start(self, body: SamplingRequest, prompt: list[int], max_tokens: int) -> AsyncGenerator[Piece]:
        params = body.params(max_tokens, self.vocabulary.end_ids, self.vocabulary.defaults)
        if body.top and not params.greedy:
            raise RequestError("the likeliest token's log-probability is known at temperature 0 only.")
        parts = pieces(self.backend.generate(prompt, params), self.vocabulary, body.stops, params.logprobs)
        return self._metrics.watch(parts, len(prompt))


def create_app(backend: Backend, vocabulary: Vocabulary, name: str, max_seq_len: int) -> FastAPI:
    """The server for one model that is called `name`; prompt and answer may have `max_seq_len` tokens together."""
    app = FastAPI(title=name, description=__doc__, responses=ERRORS, lifespan=http.lifespan)
    app.router.route_class = http.BoundedRoute
    for kind in (RequestError, QueueFull, EngineStopped, Exception):
        app.add_exception_handler(kind, http.refused)
    app.add_exception_handler(RequestValidationError, http.invalid)
    app.add_exception_handler(StarletteHTTPException, http.http_error)
    service = Service(backend, vocabulary, name, max_seq_len)
    app.post("/v1/completions", responses=ANSWERS)(service.completions)
    app.post("/v1/chat/completions", responses=ANSWERS)(service.chat_completions)
    app.get("/v1/models")(service.models)
    app.get("/health")(service.health)
    app.get("/metrics", response_class=PlainTextResponse)(service.metrics)
    schemas = app.openapi()["components"]["schemas"]  # made once and kept
    for request in (CompletionRequest, ChatRequest):
        schemas[request.__name__]["properties"]["model"]["enum"] = [name]
    return app


async def collect(parts: Parts) -> list[tuple[int, Piece]]:
    return [part async for part in parts]


async def next_of(parts: Parts) -> tuple[int, Piece]:
    return await anext(parts)
