"""Workloads: reproducible, of the lengths that were asked for, and refused when the numbers make no sense."""

from __future__ import annotations

import pytest

from engineroom.load import workload
from engineroom.load.errors import LoadError


def test_workload() -> None:
    trace = workload.chat(1000, seed=5, prompt=200, output=50)
    assert trace == workload.chat(1000, seed=5, prompt=200, output=50) != workload.chat(1000, seed=6)
    rows = {row["tokens"]: row for row in workload.percentiles(trace)}
    assert rows["prompt"]["p50"] == pytest.approx(200, rel=0.15)
    assert rows["prompt + output"]["longest"] == max(turn.total for turn in trace)
    turns = [workload.Turn(10, 21)] * 3
    in_flight = workload.in_flight(turns, rate=4, ttft=0.5, tpot=0.1)
    assert in_flight == pytest.approx(4 * (0.5 + 20 * 0.1))
    with pytest.raises(LoadError, match="medians of at least 1 token"):
        workload.chat(prompt=0)
