"""The meter counts, warns and stops; it is off where nothing is paid."""

from __future__ import annotations

import time

import pytest

from engineroom.kit.machine import Gpu, machine
from labs.kit.bill import PRICE_VARIABLE, price_per_hour
from labs.preflight import Meter, meter


def test_budget() -> None:
    assert [meter.warning(spent, 5) for spent in (0, 3.99)] == ["", ""]
    assert "80 %" in meter.warning(4, 5) and "80 %" in meter.warning(4.99, 5)
    assert "used up" in meter.warning(5, 5)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            Meter(wrong)


def test_it_counts_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRICE_VARIABLE, "3600")  # a dollar a second
    before = time.time()
    running = Meter(0.05)
    begin = time.time()
    time.sleep(0.1)
    end = time.time()
    spent = running.stop()
    longest = time.time() - before
    assert end - begin <= spent + 1e-6 <= longest + 2e-6  # clock: readings in their order
    assert running.spent == spent
    assert "used up" in str(running) and "at $3600.00 an hour (your price)" in str(running)
    time.sleep(0.05)
    assert running.stop() == spent


def test_it_is_off_where_nothing_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi
    idle = Meter()
    assert idle.rate is None and idle.spent == 0
    assert str(idle) == "Meter off: no GPU here, so nothing to pay."


def test_every_gpu_here_is_paid_and_an_unknown_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_gpus(*names: str) -> Meter:
        gpus = [Gpu(name=name, memory_gib=80, compute_capability="9.0", driver="580") for name in names]
        card = machine().model_copy(update={"gpus": gpus})
        monkeypatch.setattr(meter, "machine", lambda: card)
        return Meter(1)

    assert with_gpus("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3").rate == 2 * price_per_hour("H100")
    assert "No reference price for 'RTX 9999'" in str(with_gpus("RTX 9999"))
