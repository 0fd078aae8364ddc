"""Dollars that run on a paid machine, counted while you look, with a budget that warns."""

from __future__ import annotations

import os
import threading
import time

from engineroom.kit.machine import machine
from engineroom.kit.status import in_notebook
from labs.kit.bill import PRICE, price_per_hour


class Meter:
    """Counts dollars since it was made; says so at 80 % and at 100 % of the budget, if one is given.

    Off where nothing is paid: no GPU of a known price, no price set. As the last value of a cell it counts on by
    itself until ``stop()``. Raises ValueError for a budget that is no number above 0.
    """

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and not budget > 0:
            raise ValueError(f"A budget is a number of dollars above 0, not {budget!r}.")
        self.rate, self.why = _rate()
        self.budget = budget
        self._begin, self._end = time.time(), float("inf")
        self._stopped = threading.Event()

    @property
    def spent(self) -> float:
        """Dollars until now, or until ``stop()``."""
        return (self.rate or 0) * (min(self._end, time.time()) - self._begin) / 3600

    def stop(self) -> float:
        """Stop counting; return the dollars spent."""
        self._end = min(self._end, time.time())
        self._stopped.set()
        return self.spent

    def __str__(self) -> str:
        if self.rate is None:
            return f"Meter off: {self.why}."
        since, spent = time.strftime("%H:%M", time.localtime(self._begin)), self.spent
        text = f"${spent:.2f} since {since} at ${self.rate:.2f} an hour ({self.why})."
        return text + (warning(spent, self.budget) if self.budget else "")

    __repr__ = __str__

    def _ipython_display_(self) -> None:
        if self.rate is None or not in_notebook():
            print(self)
            return
        import ipywidgets
        from IPython.display import display

        label = ipywidgets.HTML(str(self))
        display(label)

        def count() -> None:
            while not self._stopped.wait(5):
                label.value = str(self)
            label.value = str(self)

        threading.Thread(target=count, daemon=True, name="meter").start()


def warning(spent: float, budget: float) -> str:
    """What to say about ``spent`` of ``budget`` dollars; empty below 80 %."""
    if spent >= budget:
        return f" Budget of ${budget:.2f} used up: stop the servers and give the machine back."
    return f" 80 % of your budget of ${budget:.2f} is spent." if spent >= 0.8 * budget else ""


def _rate() -> tuple[float | None, str]:
    """Dollars per hour for all GPUs here and where the figure comes from, or None and the reason."""
    if os.environ.get(PRICE):
        return price_per_hour(), "your price"
    gpus = machine().gpus
    if not gpus:
        return None, "no GPU here, so nothing to pay"
    try:
        return sum(price_per_hour(gpu.name) for gpu in gpus), f"reference price, set {PRICE} for yours"
    except ValueError as error:
        return None, str(error).rstrip(".")
