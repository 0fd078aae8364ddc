"""Lesson 01: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, pairwise
from operator import truediv
from typing import Any

import numpy as np
import pandas as pd
import torch

from engineroom.metrics import Metrics
from labs.serve_with_vllm.formulas import example_metrics
from labs.serve_with_vllm.wire import WireFacts

CHANGE = example_metrics(811, 107, time=2.0)
WIRE = WireFacts(headers=0.012, first=0.0503, last=0.1411, tokens=7, elapsed=0.2)
OTHER_CLIENT = WireFacts(headers=None, first=None, last=None, tokens=7, elapsed=0.2)
MERGED = WireFacts(headers=0.012, first=0.0503, last=0.1411, tokens=38, elapsed=0.2, pieces=7)
SILENT = WireFacts(headers=None, first=None, last=None, tokens=0, elapsed=0.2)
TIMES = [0.0507, 0.0655, 0.0807, 0.0951, 0.1103, 0.1254, 0.1407]
GENERATED, STEPS = "generation_tokens_total", "iteration_tokens_total_count"
NOW = time.time()


def shifted(seconds: float) -> list[float]:
    """The times by a clock that started that many seconds after sending."""
    return [moment - seconds for moment in TIMES]


def gaps() -> list[float]:
    return [later - earlier for earlier, later in pairwise(TIMES)]


def mean_batch(change: Metrics) -> float:
    return change[GENERATED] / change[STEPS]


def per_second(before: Metrics, after: Metrics) -> float:
    change = after - before
    return change[GENERATED] / change.time


def by_hand(before: Metrics, after: Metrics) -> float:
    return (after[GENERATED] - before[GENERATED]) / (after.time - before.time)


def changed_in_place(before: Metrics, after: Metrics) -> float:
    after[GENERATED] -= before[GENERATED]
    after.time -= before.time
    return after[GENERATED] / after.time


def of(name: str, seconds: Callable[[Metrics], float] = lambda change: change.time) -> Callable[..., float]:
    return lambda before, after: (after - before)[name] / seconds(after - before)


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "01.streaming": [
        (TIMES, WIRE),
        (tuple(TIMES), WIRE),
        (np.array(TIMES), WIRE),
        (torch.tensor(TIMES), WIRE),
        (pd.Series(TIMES), WIRE),
        (pd.DataFrame({"seconds": TIMES}), WIRE),
        ([np.float64(seconds) for seconds in TIMES], WIRE),
        (deque(TIMES), WIRE),
        (dict(enumerate(TIMES)).values(), WIRE),
        ([timedelta(seconds=seconds) for seconds in TIMES], WIRE),
        ([round(seconds, 2) for seconds in TIMES], WIRE),
        ([round(seconds, 3) for seconds in TIMES], WIRE),
        (TIMES, OTHER_CLIENT),
        (TIMES, MERGED),
    ],
    "01.counters": [
        (per_second,),
        (by_hand,),
        (changed_in_place,),
        (lambda a, b: (a - b)[GENERATED] / (a - b).time,),
        (lambda a, b: np.float32(by_hand(a, b)),),
        (lambda a, b: np.diff([a[GENERATED], b[GENERATED]])[0] / np.diff([a.time, b.time])[0],),
        (lambda a, b: Fraction(b[GENERATED] - a[GENERATED]) / Fraction(b.time - a.time),),
        (lambda a, b: torch.tensor(by_hand(a, b)),),
        (lambda a, b: round(by_hand(a, b), 2),),
    ],
    "01.batching": [
        (mean_batch, CHANGE),
        (lambda c: np.divide(c[GENERATED], c[STEPS]), CHANGE),
        (lambda c: Fraction(c[GENERATED]) / Fraction(c[STEPS]), CHANGE),
        (lambda c: Decimal(c[GENERATED]) / Decimal(c[STEPS]), CHANGE),
        (lambda c: truediv(*map(c.get, (GENERATED, STEPS))), CHANGE),
        (lambda c: round(mean_batch(c), 2), CHANGE),
        (lambda c: pd.Series(c)[GENERATED] / pd.Series(c)[STEPS], CHANGE),
    ],
    "01.waves": [
        (4, 12, 16, 4, 12),
        (16 / 4, 16 - 4, 16, 4, 11),
        (np.ceil(16 / 4), np.int64(12), 16, 4, 12),
        (torch.tensor(4), Fraction(12), 16, 4, 9.0),
        (Decimal(4), pd.Series([12])[0], 16, 4, 12),
        (4, 7, 10, 3, 7),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("01.streaming", ("0.1", WIRE), "list of seconds"),
    ("01.streaming", (0.1, WIRE), "list of seconds"),
    ("01.streaming", ({*TIMES}, WIRE), "list of seconds"),
    ("01.streaming", ([], WIRE), "inside the loop"),
    ("01.streaming", (iter([]), WIRE), "inside the loop"),
    ("01.streaming", ([0.14], WIRE), "stream=True"),
    ("01.streaming", ([str(seconds) for seconds in TIMES], WIRE), "not a number"),
    ("01.streaming", ([*TIMES[:-1], None], WIRE), "not a number"),
    ("01.streaming", ([*TIMES[:-1], float("nan")], WIRE), "no moment in time"),
    ("01.streaming", (TIMES, SILENT), "send the request in this cell"),
    ("01.streaming", (TIMES, WireFacts(0.012, 0.0503, 0.1411, 96, 0.2, 96)), "96 pieces of text arrived"),
    ("01.streaming", (TIMES * 3, MERGED), "7 pieces of text arrived"),
    ("01.streaming", (shifted(0.0123), MERGED), "starts too late"),
    ("01.streaming", (TIMES * 3, WIRE), "Begin with an empty list"),
    ("01.streaming", ([NOW + seconds for seconds in TIMES], WIRE), "clock reading"),
    ("01.streaming", ([4321.5 + seconds for seconds in TIMES], WIRE), "clock reading"),
    ("01.streaming", ([4321.5 + seconds for seconds in TIMES], OTHER_CLIENT), "clock reading"),
    ("01.streaming", ([-seconds for seconds in TIMES[::-1]], WIRE), "clock reading"),
    ("01.streaming", ([1000 * seconds for seconds in TIMES], WIRE), "milliseconds"),
    ("01.streaming", ([1000 * seconds for seconds in TIMES], OTHER_CLIENT), "milliseconds"),
    ("01.streaming", ([1e9 * seconds for seconds in TIMES], WIRE), "milliseconds"),
    ("01.streaming", ([TIMES[0], *gaps()], WIRE), "gaps between tokens"),
    ("01.streaming", (sorted(gaps()), WIRE), "gaps between"),
    ("01.streaming", (list(accumulate([1e-7] * 7, initial=0.1412)), WIRE), "stream had ended"),
    ("01.streaming", ([0.1412] * 7, WIRE), "stream had ended"),
    ("01.streaming", ([0.1412] * 7, OTHER_CLIENT), "stream had ended"),
    ("01.streaming", (shifted(0.0123), WIRE), "starts too late"),
    ("01.streaming", (shifted(0.0506), WIRE), "starts at the first token"),
    ("01.streaming", (np.array(shifted(0.0506)), WIRE), "starts at the first token"),
    ("01.streaming", (shifted(TIMES[0]), WireFacts(0.003, 0.0145, 0.15, 7, 0.2)), "starts at the first token"),
    ("01.counters", (150.0,), "Pass it uncalled"),
    ("01.counters", (lambda a, b: "fast",), "not a number"),
    ("01.counters", (lambda a, b: b - a,), "not a number"),
    ("01.counters", (lambda a, b: b[GENERATED],), "take the difference"),
    ("01.counters", (lambda a, b: b[GENERATED] / (b - a).time,), "the whole counter"),
    ("01.counters", (lambda a, b: (b - a)[GENERATED],), "divide by the seconds"),
    ("01.counters", (lambda a, b: (a - b)[GENERATED] / (b - a).time,), "The sign is reversed"),
    ("01.counters", (of("iteration_tokens_total_sum"),), "prompt tokens too"),
    ("01.counters", (lambda a, b: b[GENERATED] / b.time,), "clock reading"),
    ("01.counters", (lambda a, b: (b - a)[GENERATED] / b.time,), "clock reading"),
    ("01.counters", (of("prompt_tokens_total"),), "prompt tokens per second"),
    ("01.counters", (of(STEPS),), "engine steps per second"),
    ("01.counters", (of(GENERATED, lambda change: change[STEPS]),), "tokens per engine step"),
    ("01.counters", (lambda a, b: 1 / per_second(a, b),), "seconds per token"),
    ("01.counters", (of(GENERATED, lambda change: 1000 * change.time),), "in seconds already"),
    ("01.counters", (lambda a, b: b[GENERATED] / b.time - a[GENERATED] / a.time,), "each reading by its clock"),
    ("01.counters", (lambda a, b: (b - a)[GENERATED] // (b - a).time,), "The fraction is lost"),
    ("01.counters", (lambda a, b: int(per_second(a, b)),), "The fraction is lost"),
    ("01.counters", (lambda a, b: 125.2,), "the same for every input"),
    ("01.counters", (lambda a, b: per_second(a, b) + 5,), "by the difference of the times"),
    ("01.batching", (8, CHANGE), "Pass it uncalled"),
    ("01.batching", (lambda c: [], CHANGE), "not a number"),
    ("01.batching", (lambda c: c[GENERATED] / c.time, CHANGE), "tokens per second"),
    ("01.batching", (lambda c: c[STEPS] / c.time, CHANGE), "engine steps per second"),
    ("01.batching", (lambda c: c[STEPS] / c[GENERATED], CHANGE), "inverse"),
    ("01.batching", (lambda c: c["iteration_tokens_total_sum"] / c[STEPS], CHANGE), "counted prompt tokens too"),
    ("01.batching", (lambda c: c["prompt_tokens_total"] / c[STEPS], CHANGE), "prompt tokens per step"),
    ("01.batching", (lambda c: c[GENERATED], CHANGE), "all tokens"),
    ("01.batching", (lambda c: c[STEPS], CHANGE), "number of engine steps"),
    ("01.batching", (lambda c: c[GENERATED] / c["iteration_tokens_total_sum"], CHANGE), "The number of steps is"),
    ("01.batching", (lambda c: c[GENERATED] // c[STEPS], CHANGE), "The fraction is lost"),
    ("01.batching", (lambda c: -(-c[GENERATED] // c[STEPS]), CHANGE), "rounded up"),
    ("01.batching", (lambda c: 3.0, CHANGE), "the same for every input"),
    ("01.batching", (lambda c: mean_batch(c) + 1, CHANGE), "one token for each running request"),
    ("01.batching", (mean_batch, example_metrics(100, 100, time=1.0)), "nothing ran together"),
    ("01.batching", (mean_batch, 7.5), "not of your run"),
    ("01.batching", (mean_batch, example_metrics(0, 0, time=1.0)), "not of your run"),
    ("01.batching", (lambda c: mean_batch(c) if c[GENERATED] != 811 else 9.0, CHANGE), "the server counted 811"),
    ("01.waves", ("4", 12, 16, 4, 12), "`waves` must be a whole number"),
    ("01.waves", (3.5, 12, 16, 4, 12), "round up"),
    ("01.waves", (True, 12, 16, 4, 12), "`waves` must be a whole number"),
    ("01.waves", (4, "12", 16, 4, 12), "`longest_queue` must be a whole number"),
    ("01.waves", (16, 12, 16, 4, 12), "one request at a time"),
    ("01.waves", (1, 12, 16, 4, 12), "In one wave"),
    ("01.waves", (5, 12, 16, 4, 12), "are 20 requests; there are 16"),
    ("01.waves", (3, 12, 16, 4, 12), "are 12 requests; there are 16"),
    ("01.waves", (9, 12, 16, 4, 12), "9 waves is not it"),
    ("01.waves", (-4, 12, 16, 4, 12), "0 or more"),
    ("01.waves", (4, 8, 12, 4, 8), "how many requests run together"),
    ("01.waves", (4, 16, 16, 4, 12), "the first ones start at once"),
    ("01.waves", (4, 4, 16, 4, 12), "the rest waits"),
    ("01.waves", (4, 8, 16, 4, 12), "during the second wave"),
    ("01.waves", (4, 0, 16, 4, 12), "nobody waits"),
    ("01.waves", (4, 11, 16, 4, 12), "A queue of 11 is not it"),
    ("01.waves", (4, 12, 16, 4, 14), "vLLM reported 14"),
]  # fmt: skip
