"""The exercises of lesson 00."""

from __future__ import annotations

from collections.abc import Callable
from math import isclose
from numbers import Integral, Real

from engineroom.kit.machine import machine
from labs.kit.bill import price_per_hour
from labs.kit.check import Mistake, exercise, require, require_function, require_number


@exercise("00.card", version=1, title="Read the machine card", minutes=2)
def card(cores: object, engine: object) -> None:
    machine_card = machine()
    require(
        isinstance(cores, Integral) and not isinstance(cores, bool),
        "`cores` must be a whole number, not {value}. The row CPU of the card shows it.",
    )
    require(
        cores == machine_card.cores,
        f"`cores` is {cores}, but the card says otherwise. Read the row CPU: the number before the word cores.",
        f"The row CPU says {machine_card.cores} cores: `cores = {machine_card.cores}`.",
    )
    require(
        engine in machine_card.engines,
        f"`engine` is {engine!r}, which cannot run on this machine. Pick one from the row Engines.",
        f"The row Engines says {', '.join(machine_card.engines)}: `engine = {machine_card.engines[0]!r}`."
        if machine_card.engines
        else "No engine runs here; `make lab` sets vLLM up.",
    )


@exercise("00.weights", version=1, title="Compute how many gigabytes a model's weights take", minutes=5)
def weights(weight_gb: Callable[[float, float], float]) -> None:
    require_function(weight_gb, "weight_gb")
    output = weight_gb(8e9, 2)
    expected = 16.0
    require_number(
        output,
        {
            expected
            * 8: "That is gigabits. `bytes_per_parameter` is in bytes already: do not multiply by 8.",
            expected * 1e9: "That is bytes. A gigabyte is 1e9 bytes: divide.",
            expected
            * 1e9
            / 2**30: "That is gibibytes (2**30 bytes). GPU datasheets count in gigabytes of 1e9 bytes: "
            "divide by 1e9.",
        },
    )
    require(
        isclose(output, expected, rel_tol=0.001) and isclose(weight_gb(70e9, 0.5), 35.0, rel_tol=0.001),
        f"8 billion parameters of 2 bytes each gave {output:.4g} GB. Multiply the two arguments, then "
        "convert bytes to GB.",
        "`return parameters * bytes_per_parameter / 1e9`",
    )


@exercise("00.budget", version=1, title="Turn dollars into minutes of GPU", minutes=3)
def budget(minutes: object, dollars: float) -> None:
    if not isinstance(minutes, Real) or isinstance(minutes, bool):
        raise Mistake("I expected a number of minutes, got {type}.")
    rate = price_per_hour("H100")
    expected = dollars / rate * 60
    require(
        not isclose(minutes, expected / 60, rel_tol=0.02),
        "Those are hours. The bill of a lesson is in minutes: multiply by 60.",
    )
    products = (dollars * rate * 60, dollars * rate)
    require(
        not any(isclose(minutes, product, rel_tol=0.02) for product in products),
        "You multiplied by the price. Dollars divided by dollars per hour are hours.",
    )
    require(
        isclose(minutes, expected, rel_tol=0.02),
        f"${dollars:g} at ${rate:.2f} an hour do not buy {float(minutes):.4g} minutes. How many hours do they buy?",
        "Hours are `dollars / price_per_hour('H100')`; an hour has 60 minutes.",
    )
