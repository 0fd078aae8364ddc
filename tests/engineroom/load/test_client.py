"""The load client before servers that are not vLLM: plain OpenAI streams, odd formats, and streams that break."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder  # private: only an oracle here

from engineroom import load, metrics
from engineroom.kit.server import ROOT
from engineroom.load.answer import AnswerReader
from engineroom.load.sse import EventDecoder
from engineroom.metrics.history import record_metrics
from tests.engineroom.load.stub_server import OK, as_server, stub

DONE = b"data: [DONE]\n\n"
UNKNOWN = None


def event(
    text: str | None = None, tokens: int | None = None, reason: str | None = None, **more: Any
) -> bytes:
    """One event of /v1/completions, ``tokens`` being the usage so far. Without text and reason: no choices."""
    choices = (
        [] if text is None and reason is None else [{"index": 0, "text": text or "", "finish_reason": reason}]
    )
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}}
    return b"data: " + json.dumps({"choices": choices} | usage | more).encode() + b"\n\n"


def delta(reason: str | None = None, tokens: int | None = None, **fields: Any) -> bytes:
    """One event of /v1/chat/completions."""
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}}
    chunk = {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]} | usage
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def raw(text: str) -> bytes:
    return text.encode()


ROLE = delta(role="assistant", content="")
A, B, C = event("a"), event("b"), event("c")
COUNTED = (event("a", 1), event("b", 2), event("c", 3))
TEXT_CHUNK = '{"choices": [{"text": "abc"}]}'

# name: (events of a whole stream, text, number of output tokens, index of the event with each arrival)
WHOLE: dict[str, tuple[tuple[bytes, ...], str, int | None, list[int]]] = {
    "usage with each chunk": ((*COUNTED, DONE), "abc", 3, [0, 1, 2]),
    "usage at the end": ((A, B, C, event(tokens=3), DONE), "abc", 3, [0, 1, 2]),
    "usage at the end, a finish chunk": ((A, B, event(reason="length"), event(tokens=2), DONE), "ab", 2, [0, 1]),
    "no usage": ((A, B, C, event(reason="stop"), DONE), "abc", UNKNOWN, [0, 1, 2]),
    "null usage": ((event("a", usage=None), event("b", usage=None), DONE), "ab", UNKNOWN, [0, 1]),
    "several tokens in a chunk": ((event("ab", 2), event("c", 3), DONE), "abc", 3, [0, 0, 1]),
    "several tokens, usage at the end": ((event("ab"), C, event(tokens=3), DONE), "abc", 3, [0, 1]),
    "an end token without text": ((A, B, event(reason="stop"), event(tokens=3), DONE), "ab", 3, [0, 1]),
    "a token without text, counted": ((event("a", 1), event("", 2), event("b", 3, "stop"), DONE), "ab", 3, [0, 1, 2]),
    "the final count in each chunk": ((event("a", 3), event("b", 3), event("c", 3), DONE), "abc", 3, [0, 1, 2]),
    "zero in each chunk but the last": ((event("a", 0), event("b", 0), event(tokens=2), DONE), "ab", 2, [0, 1]),
    "usage with some chunks": ((event("a", 1), B, C, event(tokens=3), DONE), "abc", 3, [0, 1, 2]),
    "a chunk of usage in between": ((event("a", 1), event(tokens=1), event("bc", 3), DONE), "abc", 3, [0, 2, 2]),
    "no choices key": ((A, raw('data: {"usage": {"completion_tokens": 1}}\n\n'), DONE), "a", 1, [0]),
    "a token counted only at the end": ((event("a", 1), event("b", 2), event(tokens=3), DONE), "ab", 3, [0, 1]),
    "one token": ((event("a"), event(tokens=1), DONE), "a", 1, [0]),
    "an empty answer": ((event(reason="stop"), event(tokens=0), DONE), "", 0, []),
    "only [DONE]": ((DONE,), "", UNKNOWN, []),
    "no [DONE]": ((A, event("b", reason="stop")), "ab", UNKNOWN, [0, 1]),
    "no blank line at the end": ((A, B, DONE.rstrip()), "ab", UNKNOWN, [0, 1]),
    "no space after data": (tuple(part.replace(b"data: ", b"data:") for part in (*COUNTED, DONE)), "abc", 3, [0, 1, 2]),
    "CRLF": (tuple(part.replace(b"\n", b"\r\n") for part in (*COUNTED, DONE)), "abc", 3, [0, 1, 2]),
    "CR": (tuple(part.replace(b"\n", b"\r") for part in (*COUNTED, DONE)), "abc", 3, [0, 1, 2]),
    "a byte order mark": ((b"\xef\xbb\xbf" + A, DONE), "a", UNKNOWN, [0]),
    "comments": ((b": ping\n\n", A, b":\n\n:keep-alive\n", B, DONE), "ab", UNKNOWN, [1, 3]),
    "empty data": ((b"data:\n\n", A, b"data: \n\nevent: ping\n\n", B, DONE), "ab", UNKNOWN, [1, 3]),
    "event, id and retry": ((b"event: message\nid: 7\nretry: 10\n" + A, DONE), "a", UNKNOWN, [0]),
    "JSON over two data lines": ((b'data: {"choices":\ndata: [{"text": "a"}]}\n\n', DONE), "a", UNKNOWN, [0]),
    "an error of null": ((event("a", error=None), DONE), "a", UNKNOWN, [0]),
    "a line separator": ((raw('data: {"choices": [{"text": "\u2028\x85"}]}\n\n'), DONE), "\u2028\x85", UNKNOWN, [0]),
    "letters beyond ASCII": ((raw('data: {"choices": [{"text": "é日🙂"}]}\n\n'), DONE), "é日🙂", UNKNOWN, [0]),
    "events after [DONE]": ((A, DONE, B, b"data: {broken\n\n"), "a", UNKNOWN, [0]),
}  # fmt: skip
CHAT: dict[str, tuple[tuple[bytes, ...], str, int | None, list[int]]] = {
    "a role first": ((ROLE, delta(content="a"), delta(content="b"), delta("stop"), DONE), "ab", UNKNOWN, [1, 2]),
    "a role first, usage": ((ROLE, delta(content="a"), delta("stop"), event(tokens=1), DONE), "a", 1, [1]),
    "a role, counted": ((delta(tokens=0, role="assistant"), delta(tokens=2, content="ab"), DONE), "ab", 2, [1, 1]),
    "a role with text": ((delta(role="assistant", content="a"), DONE), "a", UNKNOWN, [0]),
    "a role in every chunk": ((delta(role="assistant", content="a"),) * 2 + (DONE,), "aa", UNKNOWN, [0, 1]),
    "null content": ((delta(content=None), delta(content="a"), DONE), "a", UNKNOWN, [1]),
    "no delta": ((raw('data: {"choices": [{"index": 0}]}\n\n'), delta(content="a"), DONE), "a", UNKNOWN, [1]),
    "reasoning": ((ROLE, delta(reasoning_content="hm"), delta(content="a"), DONE), "a", UNKNOWN, [1, 2]),
    "a tool call": ((ROLE, delta(tool_calls=[{"index": 0}]), delta("tool_calls"), DONE), "", UNKNOWN, [1]),
}  # fmt: skip

# name: (bytes of the body, part of the error, text before it)
BROKEN: dict[str, tuple[bytes, str, str]] = {
    "no end": (A + B, "without a finish reason and without", "ab"),
    "an empty body": (b"", "without a finish reason and without", ""),
    "one of two choices unfinished": (
        raw('data: {"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}, {"index": 1, "text": "b"}]}\n\n'),
        "without a finish reason",
        "ab",
    ),
    "cut in the middle of JSON": (A + b'data: {"choices": [{"te', "not JSON", "a"),
    "cut in the middle of [DONE]": (A + b"data: [DO", "not JSON", "a"),
    "half a line": (A + b"data: {broken\n\n" + B + DONE, "{broken", "a"),
    "a list": (A + b"data: [1]\n\n" + DONE, "JSON object", "a"),
    "broken UTF-8": (A + b'data: {"choices": [{"text": "\xff"}]}\n\n' + DONE, "not JSON", "a"),
    "deep JSON": (A + b"data: " + b"[" * 100_000 + b"\n\n", "not JSON", "a"),
    "choices of a wrong type": (A + b'data: {"choices": {}}\n\n' + DONE, "choices", "a"),
    "a choice of a wrong type": (A + b'data: {"choices": ["b"]}\n\n' + DONE, "choices", "a"),
    "text of a wrong type": (A + b'data: {"choices": [{"text": 5}]}\n\n' + DONE, "content", "a"),
    "usage of a wrong type": (A + event("b", usage=[3]) + DONE, "usage", "ab"),
    "a count in letters": (A + event("b", usage={"completion_tokens": "two"}) + DONE, "two", "ab"),
    "a negative count": (A + event("b", -1) + DONE, "completion_tokens", "ab"),
    "a count beyond memory": (A + event("b", 10**15) + DONE, "completion_tokens", "ab"),
    "a count that falls": (event("a", 2) + event("b", 1) + DONE, "fell from 2 to 1", "ab"),
    "an error event": (A + b'data: {"error": {"message": "overloaded"}}\n\n' + DONE, "overloaded", "a"),
    "an error in words": (A + b'data: {"error": "overloaded"}\n\n' + DONE, "overloaded", "a"),
    "an event named error": (A + b'event: error\ndata: {"detail": "overloaded"}\n\n' + DONE, "overloaded", "a"),
    "an error object of old vLLM": (b'data: {"object": "error", "message": "overloaded"}\n\n', "overloaded", ""),
    "an aborted answer": (A + event(reason="abort") + DONE, "abort", "a"),
    "JSON in place of events": (b'{"error": {"message": "overloaded"}}', "overloaded", ""),
    "JSON over several lines": (b'{\n  "error": {\n    "message": "overloaded"\n  }\n}\n', "overloaded", ""),
    "an answer that is no stream": (raw(TEXT_CHUNK), "abc", ""),
    "a page of HTML": (b"<html>\n<body>Bad gateway</body>\n</html>\n", "Bad gateway", ""),
}  # fmt: skip
GOOD = [("text", *case) for case in WHOLE.values()] + [("chat", *case) for case in CHAT.values()]
GOOD_NAMES = [*WHOLE, *CHAT]


def prompt_of(kind: str) -> Any:
    return [{"role": "user", "content": "x"}] if kind == "chat" else "x"


def fire(server: Any, kind: str = "text", **body: Any) -> load.Trace:
    return asyncio.run(load.fire(as_server(server), [prompt_of(kind)], 3, model="m", **body))[0]


def without_times(trace: load.Trace) -> tuple[object, ...]:
    """All that must not depend on how the network cuts the stream."""
    equal_to_next = [later == earlier for earlier, later in pairwise(trace.arrivals)]
    timeless = replace(trace, sent=0.0, arrivals=[], finished=None if trace.finished is None else 0.0)
    return timeless, len(trace.arrivals), equal_to_next


@pytest.mark.parametrize(("kind", "events", "text", "tokens", "arrivals"), GOOD, ids=GOOD_NAMES)
def test_a_whole_stream_is_read_from_any_server(
    kind: str, events: tuple[bytes, ...], text: str, tokens: int | None, arrivals: list[int]
) -> None:
    with stub(events) as server:
        trace = fire(server, kind)
    assert (trace.error, trace.text, trace.output_tokens) == (None, text, tokens)
    assert len(trace.arrivals) == len(arrivals)
    assert trace.sent <= min(trace.arrivals, default=trace.sent)
    assert trace.arrivals == sorted(trace.arrivals)


@pytest.mark.parametrize(("kind", "events", "text", "tokens", "arrivals"), GOOD, ids=GOOD_NAMES)
def test_times_are_those_of_the_chunks_with_tokens(
    kind: str, events: tuple[bytes, ...], text: str, tokens: int | None, arrivals: list[int]
) -> None:
    """Event number i arrives at 1 + i seconds."""
    decoder, reader, trace = EventDecoder(), AnswerReader(kind == "chat"), load.Trace(0.0)
    finish_index = None
    for index, part in enumerate(events):
        if b'"finish_reason": "' in part:
            finish_index = index
        for read in decoder.feed(part + (b"\n\n" if part is events[-1] else b"")):
            if not reader.done:
                reader.add(read, 1.0 + index)
    reader.fill(trace)
    assert reader.complete
    assert trace.arrivals == [1.0 + index for index in arrivals]
    if not arrivals:
        with pytest.raises(load.LoadError, match="no tokens"):
            load.ttft(trace)
        return
    last = max(arrivals[-1], finish_index or 0) if trace.per_chunk else arrivals[-1]
    assert load.ttft(trace) == 1.0 + arrivals[0]
    assert load.e2e(trace) == 1.0 + last
    distinct = sorted(set(arrivals))
    assert load.itl(trace) == [later - earlier for earlier, later in pairwise(distinct)]
    if tokens is None:
        with pytest.raises(load.LoadError, match="unknown"):
            load.tpot(trace)
    elif tokens == 1:
        with pytest.raises(load.LoadError, match="one token"):
            load.tpot(trace)
    else:
        assert load.tpot(trace) == (last - arrivals[0]) / (tokens - 1)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_is_a_failed_request_with_a_reason(name: str) -> None:
    body, message, text = BROKEN[name]
    with stub([body]) as server:
        trace = fire(server)
    assert trace.error and message in trace.error
    assert trace.text == text
    assert not load.meets(trace, load.SLO(1e9, 1e9))
    with pytest.raises(load.LoadError, match="failed"):
        load.ttft(trace)


@st.composite
def splits(draw: st.DrawFn) -> tuple[str, bytes, list[bytes]]:
    """A body from the tables above, and the same in pieces."""
    bodies = [(kind, b"".join(events)) for kind, events, *_ in GOOD]
    bodies += [("text", body) for name, (body, *_) in BROKEN.items() if name != "deep JSON"]
    kind, body = draw(st.sampled_from(bodies))
    cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=12)))
    return kind, body, [body[start:end] for start, end in pairwise([0, *cuts, len(body)])]


@settings(max_examples=25, deadline=None)
@given(splits())
def test_a_trace_does_not_depend_on_where_the_network_cuts(case: tuple[str, bytes, list[bytes]]) -> None:
    kind, body, pieces = case
    with stub([body]) as whole, stub(pieces, pause=0.002) as cut:
        assert without_times(fire(whole, kind)) == without_times(fire(cut, kind))


FIELDS = (b"data: a", b"data:b", b"data", b"data:  c", b": x", b"event: e", b"id: 1", b"retry: 5", b"", b"")
LINES = st.sampled_from(FIELDS)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(deadline=None)
@given(st.lists(st.tuples(LINES, ENDS)), st.data())
def test_events_are_those_of_openais_decoder(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    body = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=10)))
    pieces = [body[start:end] for start, end in pairwise([0, *cuts, len(body)])]
    decoder = EventDecoder()
    read = [(event.name, event.data.decode()) for piece in pieces for event in decoder.feed(piece)]
    expected = [
        (sse.event or "", sse.data) for sse in SSEDecoder().iter_bytes(iter([body])) if sse.data.strip("\n")
    ]
    assert [pair for pair in read if pair[1].strip("\n")] == expected


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
