"""Minutes and dollars of each lesson on a rented GPU.

Reference prices are in ``records/published/gpu-prices.json``. ``ENGINEROOM_PRICE_PER_HOUR``, in dollars, overrides
them.
"""

from __future__ import annotations

import os
import re
import statistics

from engineroom.kit.errors import UserError
from engineroom.kit.record import find
from labs.kit.course import LESSONS

PRICES = "gpu-prices"
PRICE_VARIABLE = "ENGINEROOM_PRICE_PER_HOUR"


class PriceError(UserError, ValueError):
    """A price that is malformed or not known; the message says what to set."""


def price_per_hour(gpu: str = "H100") -> float:
    """Return dollars per hour for one GPU on demand: your own price if set, else the median of the reference list.

    ``gpu`` is a name from the list or from nvidia-smi. Raises PriceError for a GPU that is not listed.
    """
    if price := os.environ.get(PRICE_VARIABLE):
        if not re.fullmatch(r"\d+(\.\d+)?", price):
            raise PriceError(f"{PRICE_VARIABLE} must be dollars per hour such as 3.99, not {price!r}.")
        return float(price)
    summaries = find(PRICES, "published").summary
    listed = [summary.median for series, summary in summaries.items() if series.split()[0] in gpu]
    if not listed:
        gpus = ", ".join(sorted({series.split()[0] for series in summaries}))
        raise PriceError(f"No reference price for {gpu!r}, only for {gpus}. Set {PRICE_VARIABLE}.")
    return statistics.median(listed)


def lesson_cost(minutes: float, gpu: str = "H100") -> float:
    """Return dollars for ``minutes`` on one GPU."""
    return minutes / 60 * price_per_hour(gpu)


def bill(gpu: str = "H100") -> list[dict[str, object]]:
    """Return a row for each lesson (minutes on a CPU, minutes and dollars on one ``gpu``) and a row with the sums."""
    rows = [
        {
            "lesson": lesson.slug,
            "minutes": lesson.minutes_cpu,
            f"minutes, {gpu}": lesson.minutes_gpu,
            f"dollars, {gpu}": round(lesson_cost(lesson.minutes_gpu, gpu), 2),
        }
        for lesson in LESSONS
    ]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "lesson"}
    rows.append({"lesson": "all of them", **total})
    dollars = f"dollars, {gpu}"
    return [{**row, dollars: f"{row[dollars]:.2f}"} for row in rows]


def time_and_money(number: int, gpu: str = "H100") -> str:
    """Return the line that each lesson prints: minutes to work through it, and what they cost on one ``gpu``."""
    lesson = next(lesson for lesson in LESSONS if lesson.number == number)
    return (
        f"To work through: about {lesson.minutes_cpu} minutes on a machine without a GPU, for nothing; about "
        f"{lesson.minutes_gpu} minutes on one {gpu}, ${lesson_cost(lesson.minutes_gpu, gpu):.2f} at "
        f"${price_per_hour(gpu):.2f} an hour."
    )
