"""What a lesson costs on a rented GPU, and a meter that counts while one is used.

Reference prices are in ``records/published/gpu-prices.json``; ``ENGINEROOM_PRICE_PER_HOUR`` (dollars)
overrides them.
"""

from __future__ import annotations

import os
import re
import statistics
import threading
import time

from labs.kit.machine import machine
from labs.kit.record import find
from labs.kit.show import in_notebook

PRICES = "gpu-prices"
PRICE = "ENGINEROOM_PRICE_PER_HOUR"


def price_per_hour(gpu: str = "H100") -> float:
    """Dollars per hour for one GPU on demand: yours if set, else the median of the reference list.

    ``gpu`` is a name as in the list or as nvidia-smi says it. Raises ValueError for one that is not listed.
    """
    if own := os.environ.get(PRICE):
        if not re.fullmatch(r"\d+(\.\d+)?", own):
            raise ValueError(f"{PRICE} must be dollars per hour such as 3.99, not {own!r}.")
        return float(own)
    record = find(PRICES, "published")
    listed = [one.median for series, one in record.summary.items() if series.split()[0] in gpu]
    if not listed:
        known = ", ".join(sorted({series.split()[0] for series in record.values}))
        raise ValueError(f"No reference price for {gpu!r}, only for {known}. Set {PRICE}.")
    return statistics.median(listed)


def lesson_cost(minutes: float, gpu: str = "H100") -> float:
    """Dollars for ``minutes`` on one GPU."""
    return minutes / 60 * price_per_hour(gpu)


class Budget:
    """Dollars that may be spent; ``warning`` speaks up at 80 % and at 100 %."""

    def __init__(self, dollars: float) -> None:
        if not dollars > 0:
            raise ValueError(f"A budget is a number of dollars above 0, not {dollars!r}.")
        self.dollars = dollars

    def warning(self, spent: float) -> str:
        """What to say about ``spent`` dollars; empty below 80 %."""
        if spent >= self.dollars:
            return f" Budget of ${self.dollars:.2f} used up: stop the servers and give the machine back."
        return f" 80 % of your budget of ${self.dollars:.2f} is spent." if spent >= 0.8 * self.dollars else ""


class Meter:
    """Counts dollars since it was made. Off where nothing is paid: no GPU of a known price, no price set.

    Show it as the last value of a cell: there it counts on by itself until ``stop()``.
    """

    def __init__(self, budget: Budget | None = None) -> None:
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
        since = time.strftime("%H:%M", time.localtime(self._begin))
        warning = self.budget.warning(self.spent) if self.budget else ""
        return f"${self.spent:.2f} since {since} at ${self.rate:.2f} an hour ({self.why}).{warning}"

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
