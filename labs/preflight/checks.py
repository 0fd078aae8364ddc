"""The exercises of lesson 00."""

from __future__ import annotations

from collections.abc import Callable
from math import isclose

from engineroom.kit.machine import machine
from labs.kit.bill import price_per_hour
from labs.kit.check import exercise, require, require_function


@exercise("00.card", version=1, title="Read the machine card", minutes=2)
def card(cores: object, engine: object) -> None:
    here = machine()
    require(
        isinstance(cores, int) and not isinstance(cores, bool),
        "`cores` must be a whole number, and it is {value}. The row CPU of the card has it.",
    )
    require(
        cores == here.cores,
        f"`cores` is {cores}, but the card says otherwise. Read the row CPU: the number before the word cores.",
        f"The row CPU says {here.cores} cores: `cores = {here.cores}`.",
    )
    require(
        engine in here.engines,
        f"`engine` is {engine!r}, which cannot run on this machine. Pick one from the row Engines.",
        f"The row Engines says {', '.join(here.engines)}: `engine = {here.engines[0]!r}`."
        if here.engines
        else "No engine runs here; `make lab` sets vLLM up.",
    )


@exercise("00.weights", version=1, title="Compute how many gigabytes a model's weights take", minutes=5)
def weights(weight_gb: Callable[[float, float], float]) -> None:
    require_function(weight_gb, "weight_gb")
    got, want = weight_gb(8e9, 2), 16.0
    require(
        isinstance(got, int | float),
        f"`weight_gb(8e9, 2)` gave {got!r}, not a number. Does the function `return` its result?",
    )
    require(
        not isclose(got, want * 8, rel_tol=0.01),
        "That is gigabits. `bytes_per_parameter` is in bytes already: nothing to multiply by 8.",
    )
    require(
        not isclose(got, want * 1e9, rel_tol=0.01),
        "That is bytes. A gigabyte is 1e9 bytes: divide.",
    )
    require(
        not isclose(got, want * 1e9 / 2**30, rel_tol=0.001),
        "That is gibibytes (2**30 bytes). GPU datasheets count in gigabytes of 1e9 bytes: divide by 1e9.",
    )
    require(
        isclose(got, want, rel_tol=0.001) and isclose(weight_gb(70e9, 0.5), 35.0, rel_tol=0.001),
        f"8 billion parameters of 2 bytes each gave {got:.4g} GB. Multiply the two arguments, then turn bytes into GB.",
        "`return parameters * bytes_per_parameter / 1e9`",
    )


@exercise("00.budget", version=1, title="Turn dollars into minutes of GPU", minutes=3)
def budget(minutes: object, dollars: float) -> None:
    require(
        isinstance(minutes, int | float) and not isinstance(minutes, bool),
        "I expected a number of minutes, got {type}.",
    )
    rate = price_per_hour("H100")
    want = dollars / rate * 60
    require(
        not isclose(minutes, want / 60, rel_tol=0.02),
        "Those are hours. The bill of a lesson is in minutes: multiply by 60.",
    )
    require(
        not isclose(minutes, dollars * rate * 60, rel_tol=0.02)
        and not isclose(minutes, dollars * rate, rel_tol=0.02),
        "You multiplied by the price. Dollars divided by dollars per hour are hours.",
    )
    require(
        isclose(minutes, want, rel_tol=0.02),
        f"${dollars:g} at ${rate:.2f} an hour are not {minutes:.4g} minutes. How many hours is it first?",
        "Hours are `dollars / price_per_hour('H100')`; an hour has 60 minutes.",
    )
