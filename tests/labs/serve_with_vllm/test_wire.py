"""Times of a stream from a real HTTP server, taken in right and wrong ways, against what the HTTP client noted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import openai
import pytest

from engineroom import load
from engineroom.kit.process import Server
from labs.kit.check import check
from labs.serve_with_vllm.wire import WireTimes

TOKENS = 6
HEADER_SECONDS, FIRST_SECONDS, STEP_SECONDS = 0.3, 0.3, 0.03  # what the server waits before each


class Stream(BaseHTTPRequestHandler):
    """Streams a completion, slowly, and counts its tokens as vLLM does."""

    tokens = 0
    tokens_per_piece = 1

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"vllm:generation_tokens_total {Stream.tokens}.0\n".encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(HEADER_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for index in range(TOKENS):
            time.sleep(STEP_SECONDS if index else FIRST_SECONDS)
            Stream.tokens += Stream.tokens_per_piece
            choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
            event = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing goes to the test's output."""


@pytest.fixture
def server() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Stream)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield cast(Server, SimpleNamespace(url=f"http://127.0.0.1:{http.server_port}"))
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def ask(client: openai.OpenAI) -> Iterable[Any]:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)


def usual(client: openai.OpenAI) -> list[float]:
    sent = time.perf_counter()
    return [time.perf_counter() - sent for _ in ask(client)]


def wall_clock(client: openai.OpenAI) -> list[float]:
    sent = time.time()
    return [time.time() - sent for _ in ask(client)]


def with_another_client(client: openai.OpenAI) -> list[float]:
    other = openai.OpenAI(base_url=client.base_url, api_key="none")
    return usual(other)


def after_create(client: openai.OpenAI) -> list[float]:
    stream = ask(client)
    sent = time.perf_counter()
    return [time.perf_counter() - sent for _ in stream]


def from_first_token(client: openai.OpenAI) -> list[float]:
    arrivals = [time.perf_counter() for _ in ask(client)]
    return [arrival - arrivals[0] for arrival in arrivals]


def milliseconds(client: openai.OpenAI) -> list[float]:
    return [1000 * seconds for seconds in usual(client)]


def clock_readings(client: openai.OpenAI) -> list[float]:
    return [time.perf_counter() for _ in ask(client)]


def after_the_stream(client: openai.OpenAI) -> list[float]:
    sent = time.perf_counter()
    pieces = list(ask(client))
    return [time.perf_counter() - sent for _ in pieces]


def without_request(client: openai.OpenAI) -> list[float]:
    return [0.61, 0.64, 0.67, 0.7, 0.73, 0.76]


@pytest.mark.parametrize("way", [usual, wall_clock, with_another_client])
def test_times_since_sending_pass(server: Server, way: Any) -> None:
    client = load.openai_client(server)
    wire = WireTimes(client, server)
    result = check("01.streaming", way(client), wire.facts())
    assert result, result


@pytest.mark.parametrize(
    ("way", "hint"),
    [
        (after_create, "starts too late"),
        (from_first_token, "starts at the first token"),
        (milliseconds, "milliseconds"),
        (clock_readings, "clock reading"),
        (after_the_stream, "stream had ended"),
        (without_request, "send the request in this cell"),
    ],
)
def test_other_times_are_named(server: Server, way: Any, hint: str) -> None:
    client = load.openai_client(server)
    wire = WireTimes(client, server)
    assert hint in str(check("01.streaming", way(client), wire.facts()))


@pytest.mark.parametrize("tokens_per_piece", [2, 5])
def test_a_busy_server_sends_several_tokens_in_a_piece(
    server: Server, tokens_per_piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stream, "tokens_per_piece", tokens_per_piece)
    client = load.openai_client(server)
    wire = WireTimes(client, server)
    times = usual(client)
    facts = wire.facts()
    assert (facts.pieces, facts.tokens) == (TOKENS, TOKENS * tokens_per_piece)
    assert check("01.streaming", times, facts)
    assert "starts too late" in str(check("01.streaming", after_create(client), wire.facts()))


def test_the_cell_can_be_run_again(server: Server) -> None:
    client = load.openai_client(server)
    for _ in range(2):
        wire = WireTimes(client, server)
        assert check("01.streaming", usual(client), wire.facts())
