"""Pieces of answers in OpenAI's shapes, whole or as server-sent events; and the form of every error."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from starlette.exceptions import HTTPException

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.openai.protocol import Choice, Completion, Failure, Problem, StreamOptions, Usage
from engineroom.openai.text import Piece, join

DONE = "data: [DONE]\n\n"
Parts = AsyncGenerator[tuple[int, Piece]]


class Answer:
    """One HTTP request's answer in the making: a choice for each prompt, and the tokens counted so far."""

    def __init__(self, model: str, chat: bool, top: bool, prompt_tokens: int) -> None:
        self.chat, self.top, self.prompt_tokens = chat, top, prompt_tokens
        self.completion_tokens = self.cached_tokens = 0
        self.head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
        }
        self.head["model"] = model

    def whole(self, parts: Iterable[tuple[int, Piece]]) -> str:
        """The JSON of all of it."""
        pieces: dict[int, list[Piece]] = {}
        for index, piece in parts:
            self._count(piece)
            pieces.setdefault(index, []).append(piece)
        choices = [self._choice(index, join(pieces[index]), "message") for index in sorted(pieces)]
        return self._json("chat.completion" if self.chat else "text_completion", choices, self.usage())

    async def events(
        self, first: tuple[int, Piece], rest: Parts, options: StreamOptions
    ) -> AsyncGenerator[str]:
        """Server-sent events, one a token; an error is the last event but one. Closing it closes `rest`."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"

        def event(part: tuple[int, Piece]) -> str:
            self._count(part[1])
            usage = self.usage() if options.continuous_usage_stats else None
            return f"data: {self._json(kind, [self._choice(*part, 'delta')], usage)}\n\n"

        async with aclosing(rest):
            yield event(first)
            try:
                async for part in rest:
                    yield event(part)
                if options.include_usage:
                    yield f"data: {self._json(kind, [], self.usage())}\n\n"
            except Exception as error:
                yield f"data: {describe(error)[1].model_dump_json()}\n\n"
            yield DONE

    def usage(self) -> Usage:
        total = self.prompt_tokens + self.completion_tokens
        return Usage(
            prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens, total_tokens=total,
            prompt_tokens_details={"cached_tokens": self.cached_tokens},
        )  # fmt: skip

    def _count(self, piece: Piece) -> None:
        self.completion_tokens += len(piece.outputs)
        self.cached_tokens += sum(output.cached_tokens for output in piece.outputs)

    def _json(self, kind: str, choices: list[Choice], usage: Usage | None) -> str:
        made = Completion(**self.head, object=kind, choices=choices, usage=usage)
        return made.model_dump_json(exclude_unset=True)

    def _choice(self, index: int, piece: Piece, key: str) -> Choice:
        said: dict[str, Any] = {"text": piece.text}
        if self.chat:
            said = {key: {"role": "assistant", "content": piece.text}}
        chances = self._logprobs(piece) if piece.logprobs else None
        return Choice(index=index, **said, logprobs=chances, finish_reason=piece.finish_reason)

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        if not self.chat:
            tokens, chances, places = map(list, zip(*piece.logprobs, strict=True))
            top = [{token: chance} for token, chance, _ in piece.logprobs] if self.top else None
            return {
                "tokens": tokens,
                "token_logprobs": chances,
                "top_logprobs": top,
                "text_offset": places,
            }
        content = []
        for token, chance, _ in piece.logprobs:
            one = {"token": token, "logprob": chance, "bytes": _bytes(token)}
            content.append(one | {"top_logprobs": [one] if self.top else []})
        return {"content": content}


def _bytes(token: str) -> list[int] | None:
    """None for part of a character."""
    return None if "\ufffd" in token else list(token.encode())


def describe(error: Exception) -> tuple[int, Failure]:
    """(HTTP status, OpenAI's form) of what the backend raises; within a stream the code tells the status."""
    if isinstance(error, HTTPException):
        problem = Problem(message=str(error.detail), type="server_error", code=str(error.status_code))
        return error.status_code, Failure(error=problem)
    kinds = {
        RequestError: (400, "invalid_request_error", None),
        QueueFull: (429, "rate_limit_error", "queue_full"),
        EngineStopped: (503, "server_error", "shutting_down"),
    }
    fallback = (500, "server_error", "engine_failed")
    status, kind, code = next((kinds[one] for one in kinds if isinstance(error, one)), fallback)
    message = str(error) if status != 500 else f"the engine failed: {type(error).__name__}: {error}"
    return status, Failure(error=Problem(message=message, type=kind, code=code))
