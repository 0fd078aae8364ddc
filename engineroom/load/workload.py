"""A workload: how long prompts and answers are, and how many requests are served at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """One request, in tokens."""

    prompt: int
    output: int

    @property
    def total(self) -> int:
        return self.prompt + self.output


def chat(
    requests: int = 500, seed: int = 0, prompt: float = 90, output: float = 60, spread: float = 0.8
) -> list[Turn]:
    """A chat: most turns are short, a few are very long. Lengths are log-normal around the medians given, in tokens.

    `spread` is the standard deviation of their logarithm. Raises ValueError for numbers that make no workload.
    """
    if requests < 1 or min(prompt, output) < 1 or spread < 0:
        raise ValueError(
            "A workload needs a request or more, medians from 1 token up and a spread from 0 up."
        )
    draw = np.random.default_rng(seed).lognormal
    lengths = [np.maximum(1, draw(np.log(median), spread, requests).round()) for median in (prompt, output)]
    return [Turn(int(one), int(other)) for one, other in zip(*lengths, strict=True)]


def percentiles(trace: Sequence[Turn]) -> list[dict[str, object]]:
    """Rows for a table: prompt, output and both together at p50, p90, p99 and the longest, in tokens."""
    rows: dict[str, list[int]] = {
        "prompt": [turn.prompt for turn in trace],
        "output": [turn.output for turn in trace],
        "prompt + output": [turn.total for turn in trace],
    }
    return [
        {"tokens": name}
        | {f"p{q}": round(float(np.percentile(values, q))) for q in (50, 90, 99)}
        | {"longest": max(values)}
        for name, values in rows.items()
    ]


def in_flight(trace: Sequence[Turn], rate: float, ttft: float, tpot: float) -> float:
    """Requests served at one moment, on average: Little's law, rate × mean time in the system.

    `rate` in requests per second; `ttft` and `tpot` in seconds, what users are promised.
    """
    return rate * (ttft + tpot * float(np.mean([turn.output - 1 for turn in trace])))
