"""The load client before servers that are not vLLM: plain OpenAI streams, odd formats, and streams that break."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder  # private: only an oracle here

from engineroom import load
from engineroom.load.answer import AnswerReader
from engineroom.load.sse import EventDecoder
from tests.engineroom.load.streams import (
    BROKEN,
    GOOD,
    GOOD_NAMES,
    fire,
)
from tests.engineroom.load.stub_server import stub


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
