"""The load client when a connection breaks, a server refuses or is gone, and on its first request."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engineroom import load, metrics
from engineroom.kit.server import ROOT
from engineroom.metrics.history import record_metrics
from tests.engineroom.load.streams import (
    DONE,
    ROLE,
    A,
    delta,
    event,
    fire,
)
from tests.engineroom.load.stub_server import OK, as_server, stub

FIRST_REQUEST = """
import asyncio, sys
from engineroom import load
from tests.engineroom.load.stub_server import as_server, stub

async def request(server):
    async with load.session(as_server(server)) as http:
        before = set(sys.modules)
        trace = await load.stream(http, "m", "x", 3)
    print(trace.error, trace.text, len(set(sys.modules) - before))

with stub([b'data: {"choices": [{"text": "a"}]}\\n\\n', b"data: [DONE]\\n\\n"]) as server:
    asyncio.run(request(server))
"""


def test_the_first_request_of_a_process_does_not_wait_for_imports() -> None:
    """AnyIO alone took half a second, which counted as time to first token."""
    process = subprocess.run([sys.executable, "-c", FIRST_REQUEST], capture_output=True, text=True, cwd=ROOT)
    error, text, modules = process.stdout.split() or pytest.fail(process.stderr)
    assert (error, text) == ("None", "a")
    assert int(modules) < 10  # a few small modules of httpcore


def test_the_first_token_is_not_timed_before_it_was_sent() -> None:
    """The role comes first, the usage last; both are at least a pause away from the tokens."""
    pieces = [ROLE, delta(content="a"), delta(content="b"), delta("stop"), event(tokens=2), DONE]
    with stub(pieces, pause=0.05) as server:
        trace = fire(server, "chat")
    assert len(trace.arrivals) == 2
    assert all(arrival >= sent for arrival, sent in zip(trace.arrivals, server.sent[1:3], strict=True))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (b"404 Not Found", b'{"error": {"message": "The model `m` does not exist."}}', "does not exist"),
        (b"429 Too Many Requests", b"", "429"),
        (b"503 Service Unavailable", b"<html>no healthy upstream</html>", "no healthy upstream"),
        (b"500 Internal Server Error", b"\xff\xfe", "500"),
        (b"307 Temporary Redirect", b"", "307"),
    ],
)
def test_an_http_error_is_noted_with_its_status_and_the_servers_words(
    status: bytes, body: bytes, message: str
) -> None:
    with stub([body], b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n") as server:
        trace = fire(server)
    assert trace.error and message in trace.error
    assert trace.arrivals == []


@pytest.mark.parametrize(
    ("head", "pieces", "abort"),
    [
        (OK + b"Content-Length: 99999\r\n", [A], False),
        (OK + b"Transfer-Encoding: chunked\r\n", [b"%x\r\n" % len(A), A, b"\r\n"], False),
        (OK + b"Transfer-Encoding: chunked\r\n", [b"not a number\r\n"], False),
        (OK + b"Content-Encoding: gzip\r\n", [b"not gzip"], False),
        (OK, [A], True),
        (b"nonsense\r\n", [], False),
        (b"HTTP/1.1 200", [], True),
    ],
)
def test_a_connection_that_breaks_is_a_failed_request(head: bytes, pieces: list[bytes], abort: bool) -> None:
    with stub(pieces, head, abort=abort) as server:
        trace = fire(server)
    assert trace.error
    assert trace.text in ("", "a")


def test_a_server_that_is_gone_is_a_failed_request() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        trace = fire(SimpleNamespace(url=f"http://127.0.0.1:{free.getsockname()[1]}"))
    assert trace.error and "ConnectError" in trace.error


@pytest.mark.parametrize("prompt", ["", []])
def test_an_empty_prompt_is_the_servers_to_refuse(prompt: Any) -> None:
    with stub([A, DONE]) as server:
        assert asyncio.run(load.fire(as_server(server), [prompt], 1))[0].text == "a"


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Proxies at a port that nothing listens on, in all the variables that name one, and no exceptions."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelling in (name, name.lower()):
                monkeypatch.setenv(spelling, address)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.mark.usefixtures("dead_proxy")
def test_no_client_of_a_loopback_server_goes_through_a_proxy() -> None:
    with stub([A, DONE]) as server:
        assert fire(server).error is None
    models = b'{"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]}'
    with stub(
        [models], b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    ) as server:
        assert [model.id for model in load.openai_client(as_server(server)).models.list()] == ["m"]
    page = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 2.0\n"
    with stub([page], b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n") as server:
        assert metrics.scrape(as_server(server))["num_requests_running"] == 2
        with metrics.Watch(f"{server.url}/metrics", interval=0.01) as watch:
            pass
        assert watch.samples[-1]["num_requests_running"] == 2
        with record_metrics(vllm=f"{server.url}/metrics", interval=0.01) as history:
            pass
        assert {value for samples in history.series["up"].values() for _, value in samples} == {1.0}
