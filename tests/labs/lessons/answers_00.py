"""Lesson 00: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from operator import mul
from typing import Any

import numpy as np
import pandas as pd
import torch

from engineroom.kit.machine import machine
from labs.kit import bill

HERE = machine()
RATE = bill.price_per_hour("H100")
ENGINE = HERE.engines[0]


def weight_gb(parameters: float, bytes_per_parameter: float) -> float:
    return parameters * bytes_per_parameter / 1e9


def with_loop(parameters: float, bytes_per_parameter: float) -> float:
    num_bytes = parameters * bytes_per_parameter
    for _ in range(3):
        num_bytes /= 1000
    return num_bytes


def right_once(function: Callable[..., object], later: object) -> Callable[..., object]:
    """``function`` on the first call, ``later`` from then on."""
    outputs = iter([function])
    return lambda *arguments: next(outputs, lambda *_: later)(*arguments)


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "00.card": [
        (HERE.cores, ENGINE),
        (float(HERE.cores), ENGINE.upper()),
        (np.int64(HERE.cores), np.str_(ENGINE)),
        (pd.Series([HERE.cores])[0], f" {ENGINE} "),
        (torch.tensor(HERE.cores), ENGINE),
        (Decimal(HERE.cores), ENGINE),
    ],
    "00.weights": [
        (weight_gb,),
        (lambda n, size: np.float32(n * size / 1e9),),
        (lambda n, size: Fraction(n) * Fraction(size) / 10**9,),
        (lambda n, size: Decimal(n) * Decimal(size) / Decimal(10**9),),
        (lambda n, size: torch.tensor(n) * size / 1e9,),
        (lambda n, size: np.array(n * size / 1e9),),
        (lambda n, size: round(n * size / 1e9, 2),),
        (lambda n, size: n * size * 8 / 8 * 1e-9,),
        (with_loop,),
        (lambda *sizes: partial(mul, 1e-9)(np.prod(sizes)),),
    ],
    "00.budget": [
        (10 / RATE * 60, 10),
        (round(10 / RATE * 60), 10),
        (int(10 / RATE * 60), 10),
        (np.float32(10 / RATE * 60), 10),
        (Fraction(10) / Fraction(RATE) * 60, 10),
        (Decimal(600) / Decimal(RATE), 10),
        (pd.Series([10 / RATE * 60]).iloc[0], np.int64(10)),
        (torch.tensor(600 / RATE), 10),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("00.card", ("two", ENGINE), "is text"),
    ("00.card", (str(HERE.cores), ENGINE), "without quotes"),
    ("00.card", (True, ENGINE), "must be a whole number"),
    ("00.card", ([HERE.cores], ENGINE), "must be a whole number"),
    ("00.card", (HERE.cores + 0.5, ENGINE), "must be a whole number"),
    ("00.card", (float("nan"), ENGINE), "must be a whole number"),
    ("00.card", (HERE.cores + 1000, ENGINE), "Read the row CPU"),
    ("00.card", (-HERE.cores, ENGINE), "0 or more"),
    ("00.card", (HERE.cores, "trtllm9"), "cannot run on this machine"),
    ("00.card", (HERE.cores, ""), "cannot run on this machine"),
    ("00.card", (HERE.cores, list(HERE.engines)), "Choose one name"),
    ("00.card", (HERE.cores, 1), "one name from the row Engines, in quotes"),
    ("00.weights", (16.0,), "Pass it uncalled"),
    ("00.weights", (lambda n, size: print(end=""),), "`return`"),
    ("00.weights", (lambda n, size: f"{n * size / 1e9} GB",), "text"),
    ("00.weights", (lambda n, size: [n * size / 1e9],), "without a list"),
    ("00.weights", (lambda n, size: {"gb": n * size / 1e9},), "not a number"),
    ("00.weights", (lambda n, size: n * size * 8 / 1e9,), "gigabits"),
    ("00.weights", (lambda n, size: n * size / 8 / 1e9,), "do not divide by 8"),
    ("00.weights", (lambda n, size: n * size,), "That is bytes"),
    ("00.weights", (lambda n, size: n * size / 1e6,), "megabytes"),
    ("00.weights", (lambda n, size: n * size / 2**30,), "gibibytes"),
    ("00.weights", (lambda n, size: n / size / 1e9,), "You divided by the bytes"),
    ("00.weights", (lambda n, size: n / 1e9,), "parameters in billions"),
    ("00.weights", (lambda n, size: n * 2 / 1e9,), "two bytes for every parameter"),
    ("00.weights", (lambda n, size: n * 4 / 1e9,), "four bytes for every parameter"),
    ("00.weights", (lambda n, size: n * size // 1e9,), "The fraction is lost"),
    ("00.weights", (lambda n, size: int(n * size / 1e9),), "The fraction is lost"),
    ("00.weights", (lambda n, size: round(n * size / 1e9),), "rounded to a whole number"),
    ("00.weights", (lambda n, size: n * int(size) / 1e9,), "Half a byte became 0"),
    ("00.weights", (lambda n, size: -n * size / 1e9,), "The sign is reversed"),
    ("00.weights", (lambda n, size: 16,), "the same for every input"),
    ("00.weights", (lambda n, size: float("nan"),), "should be 16.06, and is nan"),
    ("00.weights", (lambda n, size: n + size,), "Multiply the two"),
    ("00.weights", (right_once(weight_gb, None),), "Does it `return` on every path?"),
    ("00.budget", ("much", 10), "number of minutes"),
    ("00.budget", ([10 / RATE * 60], 10), "number of minutes"),
    ("00.budget", (True, 10), "number of minutes"),
    ("00.budget", (10 / RATE, 10), "Those are hours"),
    ("00.budget", (10 // RATE * 60, 10), "The fraction of the last hour"),
    ("00.budget", (10 // RATE, 10), "whole hours"),
    ("00.budget", (10 / RATE * 3600, 10), "Those are seconds"),
    ("00.budget", (10 / RATE / 60, 10), "You divided by 60"),
    ("00.budget", (10 * RATE * 60, 10), "multiplied by the price"),
    ("00.budget", (10 * RATE, 10), "multiplied by the price"),
    ("00.budget", (RATE / 10 * 60, 10), "upside down"),
    ("00.budget", (600, 10), "one dollar an hour"),
    ("00.budget", (60 / RATE, 10), "what one dollar buys"),
    ("00.budget", (7777, 10), "How many hours do they buy"),
    ("00.budget", (float("inf"), 10), "How many hours do they buy"),
    ("00.budget", (10 / RATE * 60, "ten"), "Set it to a number above 0"),
]
