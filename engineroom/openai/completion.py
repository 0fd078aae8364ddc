"""Completions in OpenAI's format, as one document or as server-sent events, and the format of every error."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from starlette.exceptions import HTTPException

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.grammar import GrammarError
from engineroom.engine.runtime.request import ContextLengthError, RequestError
from engineroom.engine.runtime.sampling import SamplingError
from engineroom.openai.fields import FieldError
from engineroom.openai.protocol import StreamOptions
from engineroom.openai.response import Choice, CompletionResponse, ErrorInfo, ErrorResponse, Usage
from engineroom.openai.text import TextDelta, join_deltas

DONE = "data: [DONE]\n\n"
IMPOSSIBLE = -9999.0  # the log-probability of a token that could not be chosen
IndexedDelta = tuple[int, TextDelta]  # the index of a choice, and a part of its text
ERRORS: tuple[
    tuple[type[Exception], int, str, str | int | None], ...
] = (  # exception, HTTP status, type, code
    (ContextLengthError, 400, "BadRequestError", 400),  # vLLM's type and code
    (RequestError, 400, "invalid_request_error", None),
    (SamplingError, 400, "invalid_request_error", None),
    (GrammarError, 400, "invalid_request_error", None),
    (QueueFull, 429, "rate_limit_error", "queue_full"),
    (EngineStopped, 503, "server_error", "shutting_down"),
)


class Completion:
    """The response to one HTTP request while it is generated: its choices, and the tokens so far.

    `num_top_logprobs`: how many likely tokens a chat's response lists for each token.
    """

    def __init__(self, model: str, is_chat: bool, num_top_logprobs: int, num_prompt_tokens: int) -> None:
        self.model, self.is_chat, self.num_top_logprobs = model, is_chat, num_top_logprobs
        self.id = f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.num_prompt_tokens = num_prompt_tokens
        self.num_completion_tokens = self.num_cached_tokens = 0
        self._opened_choices: set[int] = set()  # whose first chunk was sent

    def body(self, deltas: Iterable[IndexedDelta]) -> str:
        """The JSON of the whole response, from all of its deltas."""
        deltas_by_choice: dict[int, list[TextDelta]] = {}
        for index, delta in deltas:
            self._count(delta)
            deltas_by_choice.setdefault(index, []).append(delta)
        choices = [
            self._choice(index, join_deltas(deltas_by_choice[index]), "message", with_role=True)
            for index in sorted(deltas_by_choice)
        ]
        return self._json("chat.completion" if self.is_chat else "text_completion", choices, self.usage())

    async def events(
        self, first: IndexedDelta, remaining: AsyncGenerator[IndexedDelta], options: StreamOptions
    ) -> AsyncGenerator[str]:
        """Yield one server-sent event for each delta, then DONE. Closing this generator closes `remaining`.

        An error becomes an event of its own, just before DONE.
        """
        async with aclosing(remaining):
            yield self._event(first, options)
            try:
                async for delta in remaining:
                    yield self._event(delta, options)
                if options.include_usage:
                    yield f"data: {self._json(self._chunk_object, [], self.usage())}\n\n"
            except Exception as error:  # noqa: BLE001 - the status was sent already, so the stream carries the error
                yield f"data: {describe(error)[1].model_dump_json()}\n\n"
            yield DONE

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.num_prompt_tokens,
            completion_tokens=self.num_completion_tokens,
            total_tokens=self.num_prompt_tokens + self.num_completion_tokens,
            prompt_tokens_details={"cached_tokens": self.num_cached_tokens},
        )

    @property
    def _chunk_object(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _event(self, indexed_delta: IndexedDelta, options: StreamOptions) -> str:
        index, delta = indexed_delta
        self._count(delta)
        usage = self.usage() if options.continuous_usage_stats else None
        choice = self._choice(index, delta, "delta", with_role=index not in self._opened_choices)
        self._opened_choices.add(index)
        return f"data: {self._json(self._chunk_object, [choice], usage)}\n\n"

    def _count(self, delta: TextDelta) -> None:
        self.num_completion_tokens += len(delta.outputs)
        self.num_cached_tokens += sum(output.num_cached_tokens for output in delta.outputs)

    def _json(self, object_type: str, choices: list[Choice], usage: Usage | None) -> str:
        response = CompletionResponse(
            id=self.id,
            created=self.created,
            model=self.model,
            object=object_type,
            choices=choices,
            usage=usage,
        )
        return response.model_dump_json(exclude_unset=True)

    def _choice(self, index: int, delta: TextDelta, chat_field: str, *, with_role: bool) -> Choice:
        """`chat_field`: where a chat completion has its text, "message" or "delta".

        Clients concatenate the fields of all chunks, so only the first chunk of a choice may have the role.
        """
        text: dict[str, Any] = {"text": delta.text}
        if self.is_chat:
            role = {"role": "assistant"} if with_role else {}
            text = {chat_field: role | {"content": delta.text}}
        logprobs = self._logprobs(delta) if delta.logprobs else None
        return Choice(index=index, **text, logprobs=logprobs, finish_reason=delta.finish_reason)

    def _logprobs(self, delta: TextDelta) -> dict[str, Any]:
        return self._chat_logprobs(delta) if self.is_chat else self._text_logprobs(delta)

    def _text_logprobs(self, delta: TextDelta) -> dict[str, Any]:
        top_logprobs = [
            {token: _finite(logprob) for token, logprob in entry.top} or None for entry in delta.logprobs
        ]
        return {
            "tokens": [entry.token for entry in delta.logprobs],
            "token_logprobs": [_finite(entry.logprob) for entry in delta.logprobs],
            "top_logprobs": top_logprobs,
            "text_offset": [entry.text_offset for entry in delta.logprobs],
        }

    def _chat_logprobs(self, delta: TextDelta) -> dict[str, Any]:
        content = []
        for entry in delta.logprobs:
            likeliest = [_chat_logprob(*pair) for pair in entry.top[: self.num_top_logprobs]]
            content.append(_chat_logprob(entry.token, entry.logprob) | {"top_logprobs": likeliest})
        return {"content": content}


def _chat_logprob(token: str, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": _finite(logprob), "bytes": _utf8(token)}


def _finite(logprob: float | None) -> float | None:
    """JSON has no infinity; vLLM and OpenAI write -9999."""
    return None if logprob is None else max(logprob, IMPOSSIBLE)


def _utf8(token: str) -> list[int] | None:
    """The UTF-8 bytes of a token's text; None if the token is only part of a character."""
    return None if "\ufffd" in token else list(token.encode())


def _field(error: Exception) -> str | None:
    """The field of the request that the error is about, if it is about one."""
    if isinstance(error, SamplingError):  # its message begins with the parameter's name
        return str(error).partition(" ")[0]
    if isinstance(error, GrammarError):
        return "response_format"
    return error.field if isinstance(error, FieldError) else None


def describe(error: Exception) -> tuple[int, ErrorResponse]:
    """HTTP status and body for an error of the backend. An HTTPException's status is in the body's `code` too."""
    if isinstance(error, HTTPException):
        info = ErrorInfo(message=str(error.detail), type="server_error", code=str(error.status_code))
        return error.status_code, ErrorResponse(error=info)
    for exception, status, error_type, code in ERRORS:
        if isinstance(error, exception):
            info = ErrorInfo(message=str(error), type=error_type, code=code, param=_field(error))
            return status, ErrorResponse(error=info)
    message = f"the engine failed: {type(error).__name__}: {error}"
    return 500, ErrorResponse(error=ErrorInfo(message=message, type="server_error", code="engine_failed"))
