"""Which rates a sweep visits, for servers whose time to first token grows with the rate."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from engineroom import load
from engineroom.kit.process import Server
from engineroom.load import Trace
from engineroom.load.sweep import PROMISE

SLO = load.SLO(ttft=1.0, tpot=1.0)


def sweep_rates(monkeypatch: pytest.MonkeyPatch, capacity: float, **options: Any) -> list[float]:
    """Sweep a server that answers within the SLO up to `capacity` requests per second; returns the rates in order."""

    async def open_loop(
        server: Server, prompts: Sequence[Any], max_tokens: int, rate: float, **_: Any
    ) -> list[Trace]:
        ttft = 0.5 if rate <= capacity else 2.0
        return [Trace(0.0, [ttft, ttft + 0.1]) for _ in prompts]

    monkeypatch.setattr(sys.modules["engineroom.load.sweep"], "open_loop", open_loop)
    server: Any = None
    points = asyncio.run(load.sweep(server, SLO, 8, 16, 8, seconds=1, **options))
    rates = [point.rate for point in points]
    assert rates == sorted(rates)
    assert all((point.share(SLO) >= PROMISE) == (point.rate <= capacity) for point in points)
    return rates


def test_rates_rise_until_two_runs_miss_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep_rates(monkeypatch, capacity=20, factor=2) == [8, 16, 32, 64]


def test_a_first_rate_that_is_too_high_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep_rates(monkeypatch, capacity=3, factor=2) == [2, 4, 4, 8, 8]


def test_a_server_that_misses_every_first_rate_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep_rates(monkeypatch, capacity=0) == [2, 4, 8]


def test_the_number_of_runs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(sweep_rates(monkeypatch, capacity=1e9, max_runs=4)) == 4
