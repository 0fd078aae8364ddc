"""What a lesson costs on a rented GPU.

Reference prices are in ``records/published/gpu-prices.json``; ``ENGINEROOM_PRICE_PER_HOUR`` (dollars)
overrides them.
"""

from __future__ import annotations

import os
import re
import statistics

from engineroom.kit.record import find

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
