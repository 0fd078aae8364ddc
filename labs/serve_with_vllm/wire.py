"""When a request leaves an OpenAI client and when its answer arrives, noted below the client, in its HTTP library.

A learner's own times must agree with these: no token can be noted before its bytes have arrived.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import openai

from engineroom import metrics
from engineroom.kit.process import Server


@dataclass(frozen=True)
class WireFacts:
    """What the HTTP client and the server know about the last stream. Times are seconds after the request was sent.

    They are None when another client sent the request. ``headers`` is when ``create()`` returned, ``first`` when the
    first bytes of the answer arrived, ``last`` when it was complete. ``tokens`` is how many the server has generated
    since the cell began, ``elapsed`` how many seconds ago that was. ``pieces`` is how many pieces of text the answer
    had: fewer than tokens when the server was too busy to send each token by itself, and 0 when that is not known.
    """

    headers: float | None
    first: float | None
    last: float | None
    tokens: float
    elapsed: float
    pieces: int = 0


@dataclass
class _Exchange:
    """One request: readings of time.perf_counter, and the bytes of its answer."""

    sent: float
    headers: float | None = None
    first: float | None = None
    last: float | None = None
    body: bytearray = field(default_factory=bytearray)


class WireTimes:
    """Notes the requests of ``client`` from now on, and what ``server`` counts meanwhile."""

    def __init__(self, client: openai.OpenAI, server: Server) -> None:
        self.server = server
        self.before = metrics.scrape(server)
        self.exchanges: list[_Exchange] = []
        hooks = client._client.event_hooks
        client._client.event_hooks = {
            "request": [*hooks["request"], self._note_request],
            "response": [*hooks["response"], self._note_response],
        }

    def _note_request(self, _request: Any) -> None:
        self.exchanges.append(_Exchange(time.perf_counter()))

    def _note_response(self, response: Any) -> None:
        """``response`` is of the HTTP library that OpenAI's client uses, httpx or httpx2."""
        exchange = self.exchanges[-1]
        exchange.headers = time.perf_counter()
        read = response.iter_raw

        def read_and_note(*arguments: Any, **keywords: Any) -> Iterator[bytes]:
            for part in read(*arguments, **keywords):
                exchange.last = time.perf_counter()
                exchange.first = exchange.first or exchange.last
                exchange.body += part
                yield part

        response.iter_raw = read_and_note

    def facts(self) -> WireFacts:
        """The facts about the last request. Raises what ``metrics.scrape`` raises."""
        change = metrics.scrape(self.server) - self.before
        tokens = change.get("generation_tokens_total", 0.0)
        if not self.exchanges:
            return WireFacts(None, None, None, tokens, change.time)
        exchange = self.exchanges[-1]
        headers, first, last = (
            None if reading is None else reading - exchange.sent
            for reading in (exchange.headers, exchange.first, exchange.last)
        )
        return WireFacts(headers, first, last, tokens, change.time, count_pieces(bytes(exchange.body)))


def count_pieces(body: bytes) -> int:
    """Count the events of a streamed chat completion that have text; the body may end in the middle of an event."""
    pieces = 0
    for line in body.splitlines():
        try:
            event = json.loads(line.removeprefix(b"data: "))
            pieces += any(choice["delta"].get("content") for choice in event["choices"])
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ):  # a blank line, [DONE], or no chat completion
            continue
    return pieces
