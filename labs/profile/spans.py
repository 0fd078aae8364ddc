"""The named ranges of a trace, and how much time each name takes by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """One named range of a trace: from `begin` to `end`, in microseconds, on one thread.

    Spans of a thread are nested or apart; they never cross.
    """

    name: str
    begin: float
    end: float
    thread: int = 0

    @property
    def duration(self) -> float:
        return self.end - self.begin


def parents(spans: Sequence[Span]) -> list[int | None]:
    """For each span the index of the innermost span around it on its thread, None for an outermost one."""
    order = sorted(range(len(spans)), key=lambda index: (spans[index].begin, -spans[index].end, index))
    result: list[int | None] = [None] * len(spans)
    open_spans: dict[int, list[int]] = {}
    for index in order:
        stack = open_spans.setdefault(spans[index].thread, [])
        while stack and spans[stack[-1]].end <= spans[index].begin:
            stack.pop()
        if stack:
            result[index] = stack[-1]
        stack.append(index)
    return result


def self_durations(spans: Sequence[Span]) -> Iterator[tuple[str, float]]:
    """The name of each span, and its duration without that of the spans directly within it."""
    within = dict.fromkeys(range(len(spans)), 0.0)
    for span, parent in zip(spans, parents(spans), strict=True):
        if parent is not None:
            within[parent] += span.duration
    for index, span in enumerate(spans):
        yield span.name, span.duration - within[index]


def self_times(spans: Sequence[Span]) -> dict[str, float]:
    """Microseconds of each name by itself: without the spans within its own, summed over all calls."""
    return _sum(self_durations(spans))


def total_times(spans: Sequence[Span]) -> dict[str, float]:
    """Microseconds of each name from begin to end, summed over all calls."""
    return _sum((span.name, span.duration) for span in spans)


def calls(spans: Iterable[Span]) -> Counter[str]:
    """How many spans have each name."""
    return Counter(span.name for span in spans)


def _sum(durations: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, duration in durations:
        sums[name] = sums.get(name, 0.0) + duration
    return sums
