"""The PromQL that the dashboard needs: expressions as text for Prometheus, and evaluated here on scraped samples.

Kept because no Python library evaluates PromQL without a Prometheus server, which a notebook does not have. The
arithmetic is that of Prometheus (promql/functions.go, promql/quantile.go), and the tests compare its results with
those of a running Prometheus on the same samples.
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
Points = Sequence[tuple[float, float]]  # (Unix time in seconds, value), in the order of time
TimeSeries = Mapping[str, Mapping[Labels, Points]]  # by metric, then by labels, one of which is `job`
Values = dict[str, float]  # by the value of the label `by`; "" when there is only one
RangeFunction = Callable[[Points, float, float], float | None]  # of points, window and end


class Expression(Protocol):
    """What a panel shows. `window` is the range of rates: a PromQL duration, or seconds. `end` is a Unix time."""

    def query(self, job: str, window: str) -> str: ...
    def evaluate(self, series: TimeSeries, job: str, window: float, end: float) -> Values: ...


@dataclass(frozen=True)
class Sum:
    """The sum of all series of a metric, or one sum for each value of the label `by`.

    `where` has a regular expression by label; only series whose labels match are counted.
    """

    metric: str
    by: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    aggregate: ClassVar[Callable[[Iterable[float]], float]] = sum

    def query(self, job: str, window: str) -> str:
        return self._aggregation(self._selector(job))

    def evaluate(self, series: TimeSeries, job: str, window: float, end: float) -> Values:
        return self._aggregated(series, job, window, end, _last_value)

    def _selector(self, job: str) -> str:
        matchers = [f'job="{job}"', *(f'{name}=~"{pattern}"' for name, pattern in self.where.items())]
        return f"{self.metric}{{{','.join(matchers)}}}"

    def _aggregation(self, operand: str) -> str:
        function = self.aggregate.__name__
        return f"{function} by ({self.by}) ({operand})" if self.by else f"{function}({operand})"

    def _aggregated(
        self, series: TimeSeries, job: str, window: float, end: float, function: RangeFunction
    ) -> Values:
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for label_set, points in series.get(self.metric, {}).items():
            labels = dict(label_set)
            if labels["job"] != job or not self._matches(labels):
                continue
            value = function(points, window, end)
            if value is not None:
                groups[labels.get(self.by, "")].append(value)
        return {key: self.aggregate(values) for key, values in groups.items()}

    def _matches(self, labels: Mapping[str, str]) -> bool:
        return all(re.fullmatch(pattern, labels.get(name, "")) for name, pattern in self.where.items())


@dataclass(frozen=True)
class Max(Sum):
    """The greatest of all series, for shares, which cannot be summed over several engines."""

    aggregate = max


@dataclass(frozen=True)
class Rate(Sum):
    """The growth of a counter per second."""

    def query(self, job: str, window: str) -> str:
        return self._aggregation(f"rate({self._selector(job)}[{window}])")

    def evaluate(self, series: TimeSeries, job: str, window: float, end: float) -> Values:
        return self._aggregated(series, job, window, end, rate)


@dataclass(frozen=True)
class Quantile:
    """The quantile `q`, 0 to 1, of a histogram's observations in the window; NaN when there were none."""

    q: float
    histogram: str

    def query(self, job: str, window: str) -> str:
        return f"histogram_quantile({self.q}, {self._buckets.query(job, window)})"

    def evaluate(self, series: TimeSeries, job: str, window: float, end: float) -> Values:
        rates = self._buckets.evaluate(series, job, window, end)
        buckets = sorted((float(bound), count) for bound, count in rates.items())
        return {"": histogram_quantile(self.q, buckets)} if buckets else {}

    @property
    def _buckets(self) -> Rate:
        return Rate(f"{self.histogram}_bucket", "le")


@dataclass(frozen=True)
class Ratio:
    """`numerator` / `denominator` / `scale`, for each value of the label `by` that both have; NaN for zero by zero."""

    numerator: Sum
    denominator: Sum
    scale: float = 1

    def query(self, job: str, window: str) -> str:
        scale = f" / {self.scale:g}" if self.scale != 1 else ""
        return f"{self.numerator.query(job, window)} / {self.denominator.query(job, window)}{scale}"

    def evaluate(self, series: TimeSeries, job: str, window: float, end: float) -> Values:
        numerators = self.numerator.evaluate(series, job, window, end)
        denominators = self.denominator.evaluate(series, job, window, end)
        keys = numerators.keys() & denominators.keys()
        return {key: _divide(numerators[key], denominators[key]) / self.scale for key in keys}


def rate(points: Points, window: float, end: float) -> float | None:
    """Growth per second over (end - window, end], or None for fewer than two samples.

    A counter that falls has restarted from zero. The growth is extrapolated to each border of the window: all the way
    where the border is nearer than 1.1 times the mean distance between samples, else by half that distance, and never
    to before the counter was zero.
    """
    samples = _in_window(points, window, end)
    if len(samples) < 2:
        return None
    growth = sum(new if new < old else new - old for (_, old), (_, new) in pairwise(samples))
    first_time, first_value = samples[0]
    last_time, _ = samples[-1]
    covered = last_time - first_time
    step = covered / (len(samples) - 1)
    before = first_time - (end - window)
    after = end - last_time
    if growth > 0 and first_value >= 0:
        before = min(before, covered * first_value / growth)
    extrapolated = covered + sum(gap if gap < 1.1 * step else step / 2 for gap in (before, after))
    return growth * extrapolated / covered / window


def histogram_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """The quantile of (upper bound, count up to it) pairs, interpolated linearly inside a bucket.

    The bounds rise and the last one is infinite.
    """
    counts: list[tuple[float, float]] = []
    highest = 0.0
    for bound, count in buckets:
        highest = max(highest, count)  # the buckets of one scrape may be out of step by one observation
        counts.append((bound, highest))
    if len(counts) < 2 or highest == 0:
        return math.nan
    rank = q * highest
    index = next(i for i, (_, count) in enumerate(counts) if count >= rank)
    if index == len(counts) - 1:
        return counts[-2][0]
    lower_bound, below = counts[index - 1] if index else (0.0, 0.0)
    upper_bound, up_to = counts[index]
    if up_to <= below:
        return lower_bound
    return lower_bound + (upper_bound - lower_bound) * (rank - below) / (up_to - below)


def _in_window(points: Points, window: float, end: float) -> Points:
    time = itemgetter(0)
    return points[bisect_right(points, end - window, key=time) : bisect_right(points, end, key=time)]


def _last_value(points: Points, window: float, end: float) -> float | None:
    samples = _in_window(points, window, end)
    return samples[-1][1] if samples else None


def _divide(numerator: float, denominator: float) -> float:
    if denominator:
        return numerator / denominator
    return math.nan if numerator == 0 else math.inf
