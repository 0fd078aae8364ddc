"""Lesson 00: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

from typing import Any

from engineroom.kit.machine import machine
from labs.kit import bill

HERE = machine()
RATE = bill.price_per_hour("H100")

RIGHT: dict[str, tuple[Any, ...]] = {
    "00.card": (HERE.cores, "vllm"),
    "00.weights": (lambda n, size: n * size / 1e9,),
    "00.budget": (10 / RATE * 60, 10),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("00.card", ("two", "vllm"), "must be a whole number"),
    ("00.card", (True, "vllm"), "must be a whole number"),
    ("00.card", (HERE.cores + 1, "vllm"), "Read the row CPU"),
    ("00.card", (HERE.cores, "trtllm9"), "cannot run on this machine"),
    ("00.weights", (16.0,), "Pass it uncalled"),
    ("00.weights", (lambda n, size: print(end=""),), "`return`"),
    ("00.weights", (lambda n, size: n * size * 8 / 1e9,), "gigabits"),
    ("00.weights", (lambda n, size: n * size,), "That is bytes"),
    ("00.weights", (lambda n, size: n * size / 2**30,), "gibibytes"),
    ("00.weights", (lambda n, size: n / size / 1e9,), "Multiply the two"),
    ("00.weights", (lambda n, size: 16,), "Multiply the two"),
    ("00.budget", ("much", 10), "number of minutes"),
    ("00.budget", (10 / RATE, 10), "Those are hours"),
    ("00.budget", (10 * RATE * 60, 10), "multiplied by the price"),
    ("00.budget", (7.5, 10), "How many hours do they buy"),
]  # fmt: skip
