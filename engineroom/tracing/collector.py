"""A small collector for OTLP over HTTP: it keeps the spans that it receives in memory.

It is for a notebook or a test. For servers that run for days, use the OpenTelemetry Collector or Jaeger.
"""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from engineroom.kit.ports import HOST
from engineroom.tracing.span import JSON, PROTOBUF, Span, decode

PATH = "/v1/traces"
MAX_BODY = 64 << 20  # bytes; the largest export of OpenTelemetry's SDK
SOCKET_SECONDS = 10  # how long a client may send nothing
RESPONSES = {PROTOBUF: b"", JSON: b"{}"}  # an ExportTraceServiceResponse: all spans were accepted
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


class Collector(AbstractContextManager["Collector"]):
    """Receives spans at `url` from its start until `stop`, in threads of this process."""

    def __init__(self, port: int = 0) -> None:
        """`port` 0 takes a free one. Raises OSError if the port is in use."""
        self._spans: dict[tuple[str, str], Span] = {}  # by their ids: an exporter may repeat an export
        self._arrival = threading.Condition()
        self._server = _Server((HOST, port), partial(_Handler, self._receive))
        self.url = f"http://{HOST}:{self._server.server_port}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)
        self._thread.start()

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """The spans so far, of one trace or of all of them, in the order of their start."""
        with self._arrival:
            spans = [span for span in self._spans.values() if trace_id in (None, span.trace_id)]
        return sorted(spans, key=lambda span: span.start)

    def wait(
        self, trace_id: str, is_complete: Callable[[list[Span]], bool], timeout: float = 30
    ) -> list[Span]:
        """The spans of a trace once `is_complete` returns True for them. Raises TimeoutError after `timeout` seconds.

        Exporters send spans in batches, some of them seconds after the end of a request.
        """
        with self._arrival:
            if self._arrival.wait_for(lambda: is_complete(self.spans(trace_id)), timeout):
                return self.spans(trace_id)
            names = [span.name for span in self.spans(trace_id)]
        raise TimeoutError(
            f"The trace {trace_id} is not complete after {timeout:g} s; it has the spans {names}."
        )

    def stop(self) -> None:
        """Close the port and every connection, and wait for the threads. The spans stay readable."""
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()  # it waits for the connections' threads

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _receive(self, spans: list[Span]) -> None:
        with self._arrival:
            self._spans |= {(span.trace_id, span.span_id): span for span in spans}
            self._arrival.notify_all()


class _Server(ThreadingHTTPServer):
    """A server that can close its open connections: a client that sends nothing does not delay `stop`."""

    daemon_threads = False

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):  # the client or its thread has closed it
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    timeout = SOCKET_SECONDS

    def __init__(self, receive: Callable[[list[Span]], None], *arguments: Any) -> None:
        self.receive = receive
        super().__init__(*arguments)

    def do_POST(self) -> None:
        content_type = self.headers.get_content_type()
        if self.path != PATH:
            self._answer(404, f"Send spans to {PATH}.")
        elif content_type not in RESPONSES:
            self._answer(415, f"The content type is {content_type}; expected {' or '.join(RESPONSES)}.")
        else:
            self._collect(content_type)

    def _collect(self, content_type: str) -> None:
        try:
            self.receive(decode(self._body(), content_type))
        except (ValueError, OSError, EOFError, zlib.error) as error:
            self._answer(400, f"The body cannot be read: {error}")
        else:
            self._answer(200, RESPONSES[content_type], content_type)

    def _body(self) -> bytes:
        """Raises ValueError, OSError, EOFError or zlib.error for a body that cannot be read."""
        length = int(self.headers.get("Content-Length", -1))
        if not 0 <= length <= MAX_BODY:
            raise ValueError(f"Content-Length is {length}; expected 0 to {MAX_BODY} bytes.")
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding not in DECODERS:
            raise ValueError(f"Content-Encoding is {encoding}; expected {', '.join(DECODERS)}.")
        return DECODERS[encoding](self.rfile.read(length))

    def _answer(self, status: int, body: bytes | str, content_type: str = "text/plain") -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing into a notebook."""
