"""One table of a trace: each operator, kernel and range with its calls, its times, and the idle time before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from engineroom.profile.trace import NS_PER_US, Category, Event, Trace


@dataclass(frozen=True)
class TraceRow:
    """All events of one name and category. Times are in microseconds and sums over the calls, except `longest_us`.

    A call inside a call of the same name, such as aten::sum in aten::sum, counts as one call with the outer one.
    `total_us`: from begin to end. `self_us`: without what ran inside them; the self times of all rows add up to the
    time in which anything ran. The self time of a range is the time of code that is not an operator: Python, and on our
    engine the compiled graph. `gap_before_us`: how long the thread or stream had been idle when they began; for an
    operator or kernel, without any of those, and for a range, without any range.
    """

    name: str
    category: Category
    calls: int
    total_us: float
    self_us: float
    longest_us: float
    gap_before_us: float


class TimedEvent:
    """An event with its self time and the gap before it, in nanoseconds; is it inside another of the same name?"""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.is_recursive = False
        self.self_ns = 0
        self.gap_before_ns = 0


def trace_table(trace: Trace, within: str | None = None) -> list[TraceRow]:
    """The rows of a trace, the one with the longest self time first.

    `within`, such as "generation": only the events inside ranges of that name on the same thread or stream, and those
    ranges. Raises TraceError when there is no such range.
    """
    timed = time_events(trace.events)
    if within is not None:
        ranges = trace.ranges(within)
        timed = [item for item in timed if _is_inside(item.event, ranges)]
    groups: dict[tuple[str, Category], list[TimedEvent]] = {}
    for item in timed:
        groups.setdefault((item.event.name, item.event.category), []).append(item)
    rows = [_row(name, category, items) for (name, category), items in groups.items()]
    return sorted(rows, key=lambda row: (-row.self_us, row.name, row.category))


def time_events(events: Iterable[Event]) -> list[TimedEvent]:
    """Self time and gap of each event, thread by thread. `events` are in the order of `nesting_order`."""
    by_thread = sorted(events, key=lambda event: event.thread)  # a stable sort
    timed: list[TimedEvent] = []
    for _, group in groupby(by_thread, key=lambda event: event.thread):
        thread = [TimedEvent(event) for event in group]
        _set_self_times(thread)
        _set_gaps([item for item in thread if item.event.is_range])
        _set_gaps([item for item in thread if not item.event.is_range])
        timed += thread
    return timed


def covered_us(events: Iterable[Event]) -> float:
    """Microseconds in which any event ran, summed over threads and streams."""
    return sum(item.self_ns for item in time_events(events)) / NS_PER_US


def _set_self_times(thread: Sequence[TimedEvent]) -> None:
    """Each moment belongs to the event that began last and still runs, whether the events nest or only overlap."""
    running: list[TimedEvent] = []
    now = 0

    def advance(until: float) -> None:
        nonlocal now
        while running and now < until:
            innermost = running[-1]
            end = int(min(innermost.event.end_ns, until))
            innermost.self_ns += max(0, end - now)
            now = max(now, end)
            if innermost.event.end_ns <= now:
                running.pop()

    for item in thread:
        advance(item.event.begin_ns)
        now = item.event.begin_ns
        item.is_recursive = any(_is_recursion(outer.event, item.event) for outer in running)
        running.append(item)
    advance(float("inf"))


def _set_gaps(thread: Sequence[TimedEvent]) -> None:
    idle_since: int | None = None
    for item in thread:
        begin, end = item.event.begin_ns, item.event.end_ns
        if idle_since is None:
            idle_since = begin
        item.gap_before_ns = max(0, begin - idle_since)
        idle_since = max(idle_since, end)


def _is_inside(event: Event, ranges: Sequence[Event]) -> bool:
    return any(
        outer.thread == event.thread and outer.begin_ns <= event.begin_ns and event.end_ns <= outer.end_ns
        for outer in ranges
    )


def _is_recursion(outer: Event, event: Event) -> bool:
    return outer.name == event.name and outer.cat == event.cat and event.end_ns <= outer.end_ns


def _row(name: str, category: Category, items: Sequence[TimedEvent]) -> TraceRow:
    durations = [item.event.duration_ns for item in items if not item.is_recursive]
    return TraceRow(
        name,
        category,
        calls=len(durations),
        total_us=sum(durations) / NS_PER_US,
        self_us=sum(item.self_ns for item in items) / NS_PER_US,
        longest_us=max(durations, default=0) / NS_PER_US,
        gap_before_us=sum(item.gap_before_ns for item in items) / NS_PER_US,
    )
