"""Self times of spans: they add up to the covered time, and agree with the library's table of a trace."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.profile.table import trace_table
from engineroom.profile.trace import Event, Trace
from labs.profile.check_self_time import TRACES
from labs.profile.serving import host_spans
from labs.profile.spans import Span, parents, self_times, total_times

NAMES = ("step", "forward", "copy", "read")


@st.composite
def nested_spans(draw: st.DrawFn) -> list[Span]:
    """Spans of two threads, nested or apart, in any order."""
    spans: list[Span] = []

    def fill(begin: int, end: int, depth: int, thread: int) -> None:
        while begin < end and depth < 4 and draw(st.booleans()):
            first = draw(st.integers(begin, end - 1))
            last = draw(st.integers(first + 1, end))
            spans.append(Span(draw(st.sampled_from(NAMES)), first, last, thread))
            fill(first, last, depth + 1, thread)
            begin = last

    for thread in (0, 1):
        fill(0, 40, 0, thread)
    Random(draw(st.integers(0, 99))).shuffle(spans)
    return spans


def as_trace(spans: list[Span]) -> Trace:
    events = [
        Event(
            span.name,
            "user_annotation",
            ("1", str(span.thread)),
            round(span.begin * 1000),
            round(span.end * 1000),
        )
        for span in spans
    ]
    return Trace(tuple(sorted(events, key=lambda event: (event.begin_ns, -event.end_ns))), {})


@given(spans=nested_spans())
def test_self_times_add_up_to_the_time_of_the_outermost_spans(spans: list[Span]) -> None:
    outermost = [span for span, parent in zip(spans, parents(spans), strict=True) if parent is None]
    assert sum(self_times(spans).values()) == sum(span.duration for span in outermost)
    assert all(0 <= time <= total_times(spans)[name] for name, time in self_times(spans).items())


@given(spans=nested_spans())
def test_self_times_are_those_of_the_library_s_table(spans: list[Span]) -> None:
    rows = {row.name: row.self_us for row in trace_table(as_trace(spans))}
    assert rows == pytest.approx(self_times(spans))


@pytest.mark.parametrize("spans", TRACES.values(), ids=TRACES)
def test_the_traces_of_the_check_are_nested(spans: list[Span]) -> None:
    assert {row.name: row.self_us for row in trace_table(as_trace(spans))} == pytest.approx(self_times(spans))


def test_spans_are_the_ranges_of_a_trace_from_its_first_one_on() -> None:
    events = (
        Event("aten::copy_", "cpu_op", ("1", "5"), 90_000, 99_000),
        Event("step", "user_annotation", ("1", "5"), 100_000, 104_000),
        Event("read", "user_annotation", ("1", "9"), 101_500, 103_000),
        Event("step", "gpu_user_annotation", ("0", "7"), 101_000, 103_000),
    )
    assert host_spans(Trace(events, {})) == [Span("step", 0, 4, 0), Span("read", 1.5, 3, 1)]
