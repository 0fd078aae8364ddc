"""Server-sent events from the bytes of a response, as the HTML standard defines them ("9.2 Server-sent events").

httpx's own ``aiter_lines`` does not fit: it also splits at characters such as U+2028, which may stand inside JSON.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_IGNORED_FIELDS = (b"id", b"retry")
_MAX_UNPARSED = 2000  # bytes that are kept for an error text


@dataclass(frozen=True)
class Event:
    """``data`` without its line prefixes; ``name`` is the value of the event field, "" without one."""

    name: str
    data: bytes


class EventDecoder:
    """Turns bytes into events, wherever the network cuts the bytes.

    ``unparsed`` is what the stream had beside fields of events, such as a page of HTML or a JSON object.
    """

    def __init__(self) -> None:
        self.unparsed = b""
        self._partial_line = b""
        self._after_carriage_return = False
        self._first_line = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that end in ``data``."""
        if not data:
            return
        if self._after_carriage_return:
            data = data.removeprefix(b"\n")  # the second half of a CRLF
        self._after_carriage_return = data.endswith(b"\r")
        *lines, self._partial_line = _LINE_END.split(self._partial_line + data)
        for line in lines:
            yield from self._add_line(line)

    def finish(self) -> Iterator[Event]:
        """The last event of a stream that ends without a blank line. (The standard drops it, many clients do not.)"""
        yield from self._add_line(self._partial_line)
        yield from self._add_line(b"")

    def _add_line(self, line: bytes) -> Iterator[Event]:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if any(self._data):
                yield Event(self._name.decode(errors="replace"), b"\n".join(self._data))
            self._name, self._data = b"", []
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        elif field and field not in _IGNORED_FIELDS:  # an empty field name starts a comment
            self.unparsed = (self.unparsed + line + b"\n")[:_MAX_UNPARSED]


async def read_events(chunks: AsyncIterable[bytes], decoder: EventDecoder) -> AsyncGenerator[Event, None]:
    """The events of a whole response."""
    async for chunk in chunks:
        for event in decoder.feed(chunk):
            yield event
    for event in decoder.finish():
        yield event
