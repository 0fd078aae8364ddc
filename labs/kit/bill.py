"""Minutes and dollars of each lesson on a rented GPU.

Reference prices are in ``records/published/gpu-prices.json``; ``ENGINEROOM_PRICE_PER_HOUR`` (dollars)
overrides them.
"""

from __future__ import annotations

import os
import re
import statistics

from engineroom.kit.record import find
from labs.kit.course import LESSONS

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
    prices = find(PRICES, "published").summary
    listed = [one.median for series, one in prices.items() if series.split()[0] in gpu]
    if not listed:
        known = ", ".join(sorted({series.split()[0] for series in prices}))
        raise ValueError(f"No reference price for {gpu!r}, only for {known}. Set {PRICE}.")
    return statistics.median(listed)


def lesson_cost(minutes: float, gpu: str = "H100") -> float:
    """Dollars for ``minutes`` on one GPU."""
    return minutes / 60 * price_per_hour(gpu)


def bill(gpu: str = "H100") -> list[dict[str, object]]:
    """One row a lesson: minutes on a CPU machine, minutes and dollars on one ``gpu``; the last row is the sum."""
    rows = [
        {"lesson": one.slug, "minutes": one.minutes_cpu, f"minutes, {gpu}": one.minutes_gpu,
         f"dollars, {gpu}": round(lesson_cost(one.minutes_gpu, gpu), 2)}
        for one in LESSONS
    ]  # fmt: skip
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "lesson"}
    return [*rows, {"lesson": "all of them", **total}]


def time_and_money(number: int, gpu: str = "H100") -> str:
    """The line that each lesson prints: how long it takes to work through, and what that costs on ``gpu``."""
    lesson = next(one for one in LESSONS if one.number == number)
    return (
        f"To work through: about {lesson.minutes_cpu} minutes on a machine without a GPU, for nothing; about "
        f"{lesson.minutes_gpu} minutes on one {gpu}, ${lesson_cost(lesson.minutes_gpu, gpu):.2f} at "
        f"${price_per_hour(gpu):.2f} an hour."
    )
