"""A real HTTP server that answers every request with the given bytes, in the given pieces."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from engineroom.kit.process import Server

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"


@dataclass
class StubServer:
    """``sent`` has the clock reading (time.perf_counter) right before each piece was sent."""

    pieces: Sequence[bytes]
    head: bytes = OK
    pause: float = 0.0  # seconds before each piece
    abort: bool = False  # reset the connection after the last piece
    url: str = ""
    sent: list[float] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length:" in request:
            await reader.readexactly(int(request.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(self.head + b"\r\n")
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            self.sent.append(time.perf_counter())
            writer.write(piece)
            await writer.drain()
        if self.abort:
            await asyncio.sleep(0.1)  # a reset deletes what the client has not read yet
            writer.transport.abort()
        else:
            writer.close()


@contextmanager
def stub(
    pieces: Sequence[bytes], head: bytes = OK, *, pause: float = 0.0, abort: bool = False
) -> Iterator[StubServer]:
    """Run the server in a thread of its own while the with-block runs."""
    server, loop = StubServer(pieces, head, pause, abort), asyncio.new_event_loop()
    listener = loop.run_until_complete(asyncio.start_server(server.answer, "127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listener.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()


def as_server(server: StubServer) -> Server:
    """For functions of the load client, which read only ``url``."""
    return cast(Server, server)
