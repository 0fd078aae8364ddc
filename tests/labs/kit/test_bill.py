"""Dollars follow from minutes and a sourced price."""

from __future__ import annotations

import pytest

from engineroom.kit.record import find
from labs.kit import bill
from labs.kit.bill import PRICE_VARIABLE


@pytest.fixture(autouse=True)
def no_price_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRICE_VARIABLE, raising=False)


def test_reference_prices_are_plausible_and_sourced() -> None:
    record = find(bill.PRICES, "published")
    for gpu in ("H100", "H200"):
        series = [name for name in record.values if name.startswith(gpu)]
        providers = {name.partition(", ")[2] for name in series}
        assert len(providers) >= 3
        assert all(1 < record.summary[name].median < 20 and record.sources[name].url for name in series)
    assert bill.price_per_hour("NVIDIA H100 80GB HBM3") == bill.price_per_hour("H100")
    assert bill.price_per_hour("NVIDIA H200") == bill.price_per_hour("H200")


def test_own_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRICE_VARIABLE, "2.40")
    assert bill.lesson_cost(30) == pytest.approx(1.20)
    for wrong in ("cheap", "-1", "inf", "nan"):
        monkeypatch.setenv(PRICE_VARIABLE, wrong)
        with pytest.raises(ValueError, match=PRICE_VARIABLE):
            bill.lesson_cost(30)


def test_unknown_gpu() -> None:
    with pytest.raises(ValueError, match=rf"RTX 9999.*only for H100, H200.*{PRICE_VARIABLE}"):
        bill.price_per_hour("RTX 9999")
