"""Prometheus's functions computed by hand; test_dashboard.py compares with Prometheus itself."""

from __future__ import annotations

import math

import pytest

from engineroom.metrics import promql


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 5)], None),  # one sample has no growth
        ([(0, 0), (5, 10), (10, 20)], 2.0),
        # a restart: a growth of 8, then of 2 from zero, in 8 of 10 s; extrapolated by one second at the end
        ([(1, 0), (5, 8), (9, 2)], 1.125),
        ([(-99, 7), (2, 0), (4, 4), (6, 8)], 1.0),
    ],
)
def test_rate_by_hand(points: list[tuple[float, float]], expected: float | None) -> None:
    assert promql.rate(points, 10, 10) == (expected if expected is None else pytest.approx(expected))


def test_a_quantile_by_hand() -> None:
    inf = math.inf
    assert promql.histogram_quantile(0.5, [(1, 2), (2, 6), (inf, 8)]) == 1.5
    assert promql.histogram_quantile(0.25, [(1, 4), (inf, 4)]) == 0.25
    assert promql.histogram_quantile(0.99, [(1, 2), (2, 6), (inf, 8)]) == 2  # beyond the last bound
    assert promql.histogram_quantile(0.5, [(1, 3), (2, 2), (inf, 3)]) == 0.5  # buckets out of step
    assert math.isnan(promql.histogram_quantile(0.5, [(1, 0), (inf, 0)]))
