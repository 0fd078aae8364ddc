"""A meter of the dollars that a rented machine costs, with a warning when the budget is nearly spent."""

from __future__ import annotations

import os
import threading
import time

from engineroom.kit.machine import machine
from engineroom.kit.status import in_notebook
from labs.kit.bill import PRICE_VARIABLE, price_per_hour


class Meter:
    """Counts dollars from its creation on; warns at 80 % and at 100 % of the budget, if there is one.

    It is off where nothing is charged: no GPU with a known price, and no price set. As the last value of a cell it
    updates itself until ``stop()``. Raises ValueError for a budget that is not above 0.
    """

    def __init__(self, budget: float | None = None) -> None:
        if budget is not None and not budget > 0:
            raise ValueError(f"A budget is a number of dollars above 0, not {budget!r}.")
        self.rate, self.reason = _hourly_rate()
        self.budget = budget
        self._begin = time.time()
        self._end = float("inf")
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
            return f"Meter off: {self.reason}."
        since = time.strftime("%H:%M", time.localtime(self._begin))
        spent = self.spent
        text = f"${spent:.2f} since {since} at ${self.rate:.2f} an hour ({self.reason})."
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

        def update() -> None:
            while not self._stopped.wait(5):
                label.value = str(self)
            label.value = str(self)

        threading.Thread(target=update, daemon=True, name="meter").start()


def warning(spent: float, budget: float) -> str:
    """Return the warning for ``spent`` of ``budget`` dollars; empty below 80 %."""
    if spent >= budget:
        return f" Budget of ${budget:.2f} used up: stop the servers and give the machine back."
    return f" 80 % of your budget of ${budget:.2f} is spent." if spent >= 0.8 * budget else ""


def _hourly_rate() -> tuple[float | None, str]:
    """Return dollars per hour for all GPUs of this machine and the origin of the price, or None and the reason."""
    if os.environ.get(PRICE_VARIABLE):
        return price_per_hour(), "your price"
    gpus = machine().gpus
    if not gpus:
        return None, "no GPU here, so nothing to pay"
    try:
        return sum(
            price_per_hour(gpu.name) for gpu in gpus
        ), f"reference price, set {PRICE_VARIABLE} for yours"
    except ValueError as error:
        return None, str(error).rstrip(".")
