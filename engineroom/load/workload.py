"""A workload: how long prompts and answers are, and how many requests are served at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engineroom.load.errors import LoadError


class Turn(NamedTuple):
    """The length of one request, in tokens."""

    prompt: int
    output: int

    @property
    def total(self) -> int:
        return self.prompt + self.output


def chat(
    requests: int = 500, seed: int = 0, prompt: float = 90, output: float = 60, spread: float = 0.8
) -> list[Turn]:
    """A chat, in which most turns are short and a few are very long: log-normal lengths.

    `prompt` and `output` are the medians in tokens, `spread` the standard deviation of the lengths' logarithm.
    Raises LoadError for numbers below these limits: one request, medians of one token, a spread of 0.
    """
    if requests < 1 or min(prompt, output) < 1 or spread < 0:
        raise LoadError(
            "A workload needs at least one request, medians of at least 1 token and a spread of at least 0."
        )
    lognormal = np.random.default_rng(seed).lognormal
    prompts, outputs = (
        np.maximum(1, lognormal(np.log(median), spread, requests).round()) for median in (prompt, output)
    )
    return [Turn(*lengths) for lengths in zip(map(int, prompts), map(int, outputs), strict=True)]


def percentiles(turns: Sequence[Turn]) -> list[dict[str, object]]:
    """Rows of a table: tokens of the prompt, the output and both together, at p50, p90, p99 and the maximum."""
    lengths: dict[str, list[int]] = {
        "prompt": [turn.prompt for turn in turns],
        "output": [turn.output for turn in turns],
        "prompt + output": [turn.total for turn in turns],
    }
    rows: list[dict[str, object]] = []
    for name, tokens in lengths.items():
        quantiles = {f"p{q}": round(float(np.percentile(tokens, q))) for q in (50, 90, 99)}
        rows.append({"tokens": name, **quantiles, "longest": max(tokens)})
    return rows


def in_flight(turns: Sequence[Turn], rate: float, ttft: float, tpot: float) -> float:
    """Requests that are served at once, on average: Little's law, rate × mean time in the system.

    `rate` is in requests per second; `ttft` and `tpot`, in seconds, are what users are promised.
    """
    return rate * (ttft + tpot * float(np.mean([turn.output - 1 for turn in turns])))
