"""The little PromQL that the dashboard needs: each expression as text for Prometheus, and computed here from samples.

The arithmetic is that of Prometheus (promql/functions.go, promql/quantile.go); the tests compare it with a running
Prometheus on the same samples.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import ClassVar, Protocol

Labels = frozenset[tuple[str, str]]
Points = Sequence[tuple[float, float]]  # (Unix time in seconds, value), rising
Samples = Mapping[str, Mapping[Labels, Points]]  # by metric, then by labels, of which one is `job`
Values = dict[str, float]  # by the label of `by`; "" when all are one

_time = itemgetter(0)


class Expression(Protocol):
    """`window`: what rates are taken over; a PromQL duration in text, seconds in numbers. `end`: Unix time."""

    def text(self, job: str, window: str) -> str: ...
    def at(self, samples: Samples, job: str, window: float, end: float) -> Values: ...


@dataclass(frozen=True)
class Value:
    """The sum of all series of a metric, or one sum for each value of the label `by`; `where`: regular expressions."""

    metric: str
    by: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    together: ClassVar[Callable[[Iterable[float]], float]] = sum

    def selector(self, job: str) -> str:
        matchers = [f'job="{job}"', *(f'{name}=~"{value}"' for name, value in self.where.items())]
        return f"{self.metric}{{{','.join(matchers)}}}"

    def total(self, inner: str) -> str:
        function = self.together.__name__
        return f"{function} by ({self.by}) ({inner})" if self.by else f"{function}({inner})"

    def text(self, job: str, window: str) -> str:
        return self.total(self.selector(job))

    def at(self, samples: Samples, job: str, window: float, end: float) -> Values:
        return self._series(samples, job, window, end, _last)

    def _series(
        self,
        samples: Samples,
        job: str,
        window: float,
        end: float,
        function: Callable[[Points, float, float], float | None],
    ) -> Values:
        found: defaultdict[str, list[float]] = defaultdict(list)
        for labels, points in samples.get(self.metric, {}).items():
            known = dict(labels)
            fits = all(re.fullmatch(value, known.get(name, "")) for name, value in self.where.items())
            if known["job"] == job and fits and (value := function(points, window, end)) is not None:
                found[known.get(self.by, "")].append(value)
        return {key: self.together(values) for key, values in found.items()}


@dataclass(frozen=True)
class Peak(Value):
    """The greatest of all series: shares of several engines cannot be added."""

    together = max


@dataclass(frozen=True)
class Rate(Value):
    """How much a counter grows in a second."""

    def text(self, job: str, window: str) -> str:
        return self.total(f"rate({self.selector(job)}[{window}])")

    def at(self, samples: Samples, job: str, window: float, end: float) -> Values:
        return self._series(samples, job, window, end, rate)


@dataclass(frozen=True)
class Quantile:
    """A quantile, 0 to 1, of what a histogram counted in the window; NaN when it counted nothing."""

    q: float
    histogram: str

    def text(self, job: str, window: str) -> str:
        return f"histogram_quantile({self.q}, {Rate(f'{self.histogram}_bucket', 'le').text(job, window)})"

    def at(self, samples: Samples, job: str, window: float, end: float) -> Values:
        buckets = Rate(f"{self.histogram}_bucket", "le").at(samples, job, window, end)
        counts = sorted((float(bound), count) for bound, count in buckets.items())
        return {"": histogram_quantile(self.q, counts)} if counts else {}


@dataclass(frozen=True)
class Ratio:
    """One by the other and by `scale`, for each value of the label `by` that both have; NaN where both are zero."""

    top: Value
    bottom: Value
    scale: float = 1

    def text(self, job: str, window: str) -> str:
        scale = f" / {self.scale:g}" if self.scale != 1 else ""
        return f"{self.top.text(job, window)} / {self.bottom.text(job, window)}{scale}"

    def at(self, samples: Samples, job: str, window: float, end: float) -> Values:
        top, bottom = (one.at(samples, job, window, end) for one in (self.top, self.bottom))
        return {key: _divided(top[key], bottom[key]) / self.scale for key in top.keys() & bottom.keys()}


def rate(points: Points, window: float, end: float) -> float | None:
    """Growth per second over (end - window, end]; None below two samples.

    A fall is a restart from zero. The growth is extrapolated to a border of the window that is nearer than 1.1 times
    the samples' mean distance, else by half that distance, and never to before the counter was zero.
    """
    inside = _inside(points, window, end)
    if len(inside) < 2:
        return None
    growth = sum(new if new < old else new - old for (_, old), (_, new) in pairwise(inside))
    (first, start), (last, _) = inside[0], inside[-1]
    covered = last - first
    step = covered / (len(inside) - 1)
    before, after = first - (end - window), end - last
    if growth > 0 and start >= 0:
        before = min(before, covered * start / growth)
    covers = covered + sum(gap if gap < 1.1 * step else step / 2 for gap in (before, after))
    return growth * covers / covered / window


def histogram_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """From (upper bound, how many up to it), rising, the last bound infinite; linear inside a bucket."""
    counts, most = [], 0.0
    for bound, count in buckets:
        most = max(most, count)  # scrapes of one histogram may be out of step by one
        counts.append((bound, most))
    if len(counts) < 2 or most == 0:
        return math.nan
    rank = q * most
    place = next(i for i, (_, count) in enumerate(counts) if count >= rank)
    if place == len(counts) - 1:
        return counts[-2][0]
    low, below = counts[place - 1] if place else (0.0, 0.0)
    high, upto = counts[place]
    return low + (high - low) * (rank - below) / (upto - below) if upto > below else low


def _inside(points: Points, window: float, end: float) -> Points:
    return points[bisect_right(points, end - window, key=_time) : bisect_right(points, end, key=_time)]


def _last(points: Points, window: float, end: float) -> float | None:
    inside = _inside(points, window, end)
    return inside[-1][1] if inside else None


def _divided(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan if top == 0 else math.inf
