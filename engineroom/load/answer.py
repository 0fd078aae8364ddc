"""Reads the events of one streamed answer: OpenAI's completions or chat completions, from any server.

vLLM and this project's servers send the number of tokens so far with each chunk (``continuous_usage_stats``). OpenAI's
API has the number once at the end, if ``include_usage`` is understood at all. Nothing in it says how many tokens a
chunk has, so this module never equates chunks with tokens unless the server's counts prove it.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from engineroom.load.sse import Event
from engineroom.load.trace import Trace

Json = dict[str, Any]
T = TypeVar("T")
DONE = b"[DONE]"
MAX_TOKENS = 10_000_000  # a greater count is a mistake of the server
OUTPUT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
FAILURES = ("abort", "error")  # finish reasons of vLLM and SGLang for an answer that is not whole


class StreamError(ValueError):
    """The stream reports an error, or is not what OpenAI's API has."""


class AnswerReader:
    """Collects the events of one answer. ``done`` is True after [DONE], the last event of a stream."""

    def __init__(self, chat: bool) -> None:
        self.done = False
        self._chat = chat
        self._text = ""
        self._chunk_times: list[float] = []  # of chunks with output
        self._token_times: list[float] = []  # by the counts that came with the chunks
        self._counted = True  # each chunk with output came with a count
        self._total: int | None = None  # the newest completion_tokens
        self._prompt_tokens: int | None = None
        self._unfinished: dict[int, bool] = {}  # by index of the choice
        self._finished: float | None = None

    @property
    def complete(self) -> bool:
        """True after the end of the stream, or after the finish reason of every choice."""
        return self.done or (bool(self._unfinished) and not any(self._unfinished.values()))

    def add(self, event: Event, now: float) -> None:
        """Add an event that arrived at ``now``. Raises StreamError."""
        if event.data.strip() == DONE:
            self.done = True
            return
        chunk = _json_object(event.data)
        if event.name == "error" or chunk.get("error") or chunk.get("object") == "error":
            raise StreamError(f"The server reports an error: {_shown(chunk.get('error') or chunk)}")
        choices = _typed(chunk, "choices", list, []) if "choices" in chunk else []
        outputs = [self._add_choice(choice, now) for choice in choices]
        self._add_usage(_typed(chunk, "usage", dict, {}), any(outputs), bool(choices), now)

    def _add_choice(self, choice: Any, now: float) -> bool:
        """Add the text of a choice. Returns whether it has output."""
        if not isinstance(choice, dict):
            raise StreamError(f"Each of the choices must be an object, not {_shown(choice)}.")
        delta = _typed(choice, "delta", dict, {}) if self._chat else {"content": choice.get("text")}
        self._text += _typed(delta, "content", str, "")
        reason, index = choice.get("finish_reason"), _typed(choice, "index", int, 0)
        if reason in FAILURES:
            raise StreamError(f"The server ended the answer with finish_reason {reason!r}.")
        self._unfinished[index] = self._unfinished.get(index, True) and not reason
        if reason:
            self._finished = now
        return any(delta.get(name) for name in OUTPUT_FIELDS)

    def _add_usage(self, usage: Json, output: bool, choices: bool, now: float) -> None:
        """Note the server's counts. ``output``: the chunk has output. ``choices``: it has choices."""
        prompt_tokens = _count(usage, "prompt_tokens")
        self._prompt_tokens = self._prompt_tokens if prompt_tokens is None else prompt_tokens
        total = _count(usage, "completion_tokens")
        new_tokens = 0 if total is None else total - (self._total or 0)
        if new_tokens < 0:
            raise StreamError(f"completion_tokens fell from {self._total} to {total}.")
        self._total = self._total if total is None else total
        if output:
            self._chunk_times.append(now)
        if (output and new_tokens == 0) or (new_tokens > 0 and not choices):
            self._counted = False
        if self._counted:
            self._token_times += [now] * new_tokens

    def fill(self, trace: Trace) -> None:
        """Write what is known of the answer into ``trace``."""
        trace.text, trace.prompt_tokens, trace.completion_tokens = (
            self._text,
            self._prompt_tokens,
            self._total,
        )
        if self._counted and self._total is not None:
            trace.arrivals = self._token_times
        else:
            trace.arrivals = self._chunk_times
            # each chunk with output has at least one token: as many chunks as tokens means one token in each
            trace.per_chunk = self._total != len(self._chunk_times)
            trace.finished = self._finished if trace.per_chunk else None


def _json_object(data: bytes) -> Json:
    try:
        chunk = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise StreamError(
            f"An event is not JSON: {_shown(data.decode(errors='replace'))} ({error})"
        ) from error
    if not isinstance(chunk, dict):
        raise StreamError(f"An event must be a JSON object, not {_shown(chunk)}.")
    return chunk


def _typed(parent: Json, key: str, kind: type[T], default: T) -> T:
    """``parent[key]``, or the default when it is null or absent. Raises StreamError for another type."""
    value = parent.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise StreamError(f"{key} must be of JSON type {kind.__name__}, not {_shown(value)}.")
    return value


def _count(usage: Json, key: str) -> int | None:
    count = usage.get(key)
    if count is None:
        return None
    if type(count) is not int or not 0 <= count <= MAX_TOKENS:
        raise StreamError(f"{key} must be a whole number from 0 to {MAX_TOKENS}, not {_shown(count)}.")
    return count


def _shown(value: object) -> str:
    return (value if isinstance(value, str) else repr(value))[:500]
