"""Streams of servers that are not vLLM: whole, broken and odd, as bytes; and a request that reads them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from engineroom import load
from tests.engineroom.load.stub_server import as_server

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
