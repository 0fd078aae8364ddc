"""Dollars follow from minutes and a sourced price; the meter counts, warns and stops."""

from __future__ import annotations

import time

import pytest

from labs.kit import cost
from labs.kit.record import find

PRICE = "ENGINEROOM_PRICE_PER_HOUR"


@pytest.fixture(autouse=True)
def no_own_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRICE, raising=False)


def test_reference_prices_are_plausible_and_sourced() -> None:
    record = find(cost.PRICES, "published")
    for gpu in ("H100", "H200"):
        series = [name for name in record.values if name.startswith(gpu)]
        providers = {name.partition(", ")[2] for name in series}
        assert len(providers) >= 3
        assert all(1 < record.summary[name].median < 20 and record.sources[name].url for name in series)
    assert cost.price_per_hour("NVIDIA H100 80GB HBM3") == cost.price_per_hour("H100")
    assert cost.price_per_hour("NVIDIA H200") == cost.price_per_hour("H200")


def test_own_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRICE, "2.40")
    assert cost.lesson_cost(30) == pytest.approx(1.20)
    for wrong in ("cheap", "-1", "inf", "nan"):
        monkeypatch.setenv(PRICE, wrong)
        with pytest.raises(ValueError, match=PRICE):
            cost.lesson_cost(30)


def test_unknown_gpu() -> None:
    with pytest.raises(ValueError, match=rf"RTX 9999.*only for H100, H200.*{PRICE}"):
        cost.price_per_hour("RTX 9999")


def test_budget() -> None:
    budget = cost.Budget(5)
    assert [budget.warning(spent) for spent in (0, 3.99)] == ["", ""]
    assert "80 %" in budget.warning(4) and "80 %" in budget.warning(4.99)
    assert "used up" in budget.warning(5)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            cost.Budget(wrong)


def test_meter_counts_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRICE, "3600")  # a dollar a second
    meter = cost.Meter(cost.Budget(0.2))
    time.sleep(0.3)
    spent = meter.stop()
    assert 0.3 <= spent < 3 and meter.spent == spent
    assert "used up" in str(meter) and "at $3600.00 an hour (your price)" in str(meter)
    time.sleep(0.05)
    assert meter.stop() == spent


def test_meter_is_off_where_nothing_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi
    meter = cost.Meter()
    assert meter.rate is None and meter.spent == 0
    assert str(meter) == "Meter off: no GPU here, so nothing to pay."
