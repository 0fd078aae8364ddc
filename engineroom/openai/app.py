"""OpenAI's HTTP API in front of a backend that generates tokens: our executor, or a Triton server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException as StarletteHTTPException

from engineroom.engine.runtime.async_executor import Backend, EngineStopped, QueueFull
from engineroom.engine.runtime.grammar import GrammarError
from engineroom.engine.runtime.request import ContextLengthError, RequestError, TokenOutput
from engineroom.engine.runtime.sampling import SamplingError, SamplingParams
from engineroom.openai import http
from engineroom.openai.completion import Completion, IndexedDelta
from engineroom.openai.echo import echo
from engineroom.openai.fields import FieldError
from engineroom.openai.metrics import ServerMetrics
from engineroom.openai.protocol import ChatRequest, CompletionRequest, SamplingRequest, StreamOptions
from engineroom.openai.response import CompletionResponse, ErrorResponse, ModelCard, ModelList
from engineroom.openai.response_format import schema_of
from engineroom.openai.text import TextDelta, Vocabulary, detokenize

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse},
    "5XX": {"model": ErrorResponse},
}
COMPLETION_RESPONSES = ERROR_RESPONSES | {
    200: {"model": CompletionResponse, "content": {"text/event-stream": {}}}
}


class CompletionService:
    """Serves one model under the name `name`. Prompt and output together may have `max_seq_len` tokens."""

    def __init__(self, backend: Backend, vocabulary: Vocabulary, name: str, max_seq_len: int) -> None:
        self.backend, self.vocabulary, self.name, self.max_seq_len = backend, vocabulary, name, max_seq_len
        self._metrics = ServerMetrics(backend.stats, name)
        self._created = int(time.time())

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        self._check_model(body)
        prompts = await asyncio.to_thread(self._encode, body.prompts)
        return await self._respond(request, body, prompts, body.max_output_tokens)

    async def chat_completions(self, body: ChatRequest, request: Request) -> Response:
        self._check_model(body)
        tools = [tool.model_dump() for tool in body.tools] if body.tools else None
        prompt = await asyncio.to_thread(self.vocabulary.chat, body.messages, tools)
        remaining = max(1, self.max_seq_len - len(prompt))
        max_tokens = body.max_completion_tokens or body.max_tokens or remaining
        return await self._respond(request, body, [prompt], max_tokens)

    async def responses(self) -> None:
        raise HTTPException(404, "This server has no /v1/responses; send the input to /v1/chat/completions.")

    async def models(self) -> ModelList:
        card = ModelCard(id=self.name, created=self._created, max_model_len=self.max_seq_len)
        return ModelList(data=[card])

    async def health(self) -> dict[str, str]:
        problem = self.backend.problem()
        if problem:
            raise HTTPException(503, problem)
        return {"status": "ready"}

    async def metrics(self) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def _check_model(self, body: SamplingRequest) -> None:
        if body.model != self.name:
            raise HTTPException(
                404, f"The model {body.model!r} does not exist; this server has {self.name!r}."
            )

    def _encode(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        return [self.vocabulary.encode(prompt) for prompt in prompts]

    async def _respond(
        self, request: Request, body: SamplingRequest, prompts: list[list[int]], max_tokens: int
    ) -> Response:
        """Generate the choices for each prompt; the response is one JSON document or a stream of events."""
        params = await asyncio.to_thread(self._sampling_params, body, max_tokens)
        streams = [
            self._generate(body, index, prompt, with_seed(params, choice))
            for index, prompt in enumerate(prompts)
            for choice in range(body.num_choices)
        ]
        deltas = http.merge(streams)
        num_prompt_tokens = sum(len(prompt) for prompt in prompts)
        is_chat = isinstance(body, ChatRequest)
        completion = Completion(self.name, is_chat, body.num_logprobs or 0, num_prompt_tokens)
        if not body.stream:
            all_deltas = await http.cancel_on_disconnect(request, _collect(deltas))
            return Response(completion.body(all_deltas), media_type="application/json")
        # an error before the first delta still gets its HTTP status
        first = await http.cancel_on_disconnect(request, _next(deltas))
        options = body.stream_options or StreamOptions()
        return http.EventStream(completion.events(first, deltas, options))

    def _sampling_params(self, body: SamplingRequest, max_tokens: int) -> SamplingParams:
        """Raises FieldError, SamplingError or GrammarError."""
        vocabulary, schema = self.vocabulary, schema_of(body.response_format)
        for token_id in map(int, body.logit_bias or ()):
            if token_id >= vocabulary.size:
                raise FieldError(
                    "logit_bias", f"token {token_id}: the vocabulary has {vocabulary.size} tokens."
                )
        grammar = None if schema is None else vocabulary.grammar_compiler.json_schema(schema)
        params = body.sampling_params(max_tokens, vocabulary.end_ids, vocabulary.defaults, grammar)
        with_prompt_logprobs = isinstance(body, CompletionRequest) and body.echo
        return replace(params, prompt_logprobs=params.logprobs) if with_prompt_logprobs else params

    def _generate(
        self, body: SamplingRequest, index: int, prompt: list[int], params: SamplingParams
    ) -> AsyncGenerator[TextDelta]:
        """One choice for the prompt number `index`."""
        with_logprobs = params.logprobs is not None
        outputs = self._outputs(prompt, params)
        deltas = detokenize(outputs, self.vocabulary, body.stop_strings, with_logprobs, params.min_tokens)
        if isinstance(body, CompletionRequest) and body.echo:
            text = body.prompts[index]
            text = text if isinstance(text, str) else self.vocabulary.decode(text)
            deltas = echo(deltas, self.vocabulary, text, prompt, with_output=body.max_tokens != 0)
        return self._metrics.watch(deltas, len(prompt))

    async def _outputs(self, prompt: list[int], params: SamplingParams) -> AsyncGenerator[TokenOutput]:
        """The backend's output. An error about its length begins with words that gateways look for.

        LiteLLM and others find context-window errors by OpenAI's and vLLM's words, and then ask another model.
        """
        try:
            async with aclosing(self.backend.generate(prompt, params)) as outputs:
                async for output in outputs:
                    yield output
        except ContextLengthError as error:
            raise ContextLengthError(
                f"This model's maximum context length is {self.max_seq_len} tokens. However, {error} Please reduce the "
                "length of the prompt, or max_tokens."
            ) from None


def with_seed(params: SamplingParams, choice: int) -> SamplingParams:
    """The parameters of one of several choices for a prompt: each has a seed of its own, as in vLLM."""
    return params if params.seed is None or not choice else replace(params, seed=params.seed + choice)


def create_app(backend: Backend, vocabulary: Vocabulary, name: str, max_seq_len: int) -> FastAPI:
    """The server for one model, under the name `name`.

    Prompt and output together may have `max_seq_len` tokens.
    """
    app = FastAPI(title=name, description=__doc__ or "", responses=ERROR_RESPONSES, lifespan=http.lifespan)
    app.router.route_class = http.BoundedRoute
    for exception in (RequestError, SamplingError, GrammarError, QueueFull, EngineStopped, Exception):
        app.add_exception_handler(exception, http.handle_backend_error)
    app.add_exception_handler(RequestValidationError, http.handle_validation_error)
    app.add_exception_handler(StarletteHTTPException, http.handle_http_error)
    service = CompletionService(backend, vocabulary, name, max_seq_len)
    app.post("/v1/completions", responses=COMPLETION_RESPONSES)(service.completions)
    app.post("/v1/chat/completions", responses=COMPLETION_RESPONSES)(service.chat_completions)
    app.post("/v1/responses", include_in_schema=False)(service.responses)
    app.get("/v1/models")(service.models)
    app.get("/health")(service.health)
    app.get("/metrics", response_class=PlainTextResponse)(service.metrics)
    _allow_only_model(app, name)
    return app


def _allow_only_model(app: FastAPI, name: str) -> None:
    """List the only model name in the OpenAPI document, which FastAPI generates once and keeps."""
    schemas = app.openapi()["components"]["schemas"]
    for request_class in (CompletionRequest, ChatRequest):
        schemas[request_class.__name__]["properties"]["model"]["enum"] = [name]


async def _collect(deltas: AsyncGenerator[IndexedDelta]) -> list[IndexedDelta]:
    return [delta async for delta in deltas]


async def _next(deltas: AsyncGenerator[IndexedDelta]) -> IndexedDelta:
    return await anext(deltas)
