"""The exercises of lesson 00."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isclose
from numbers import Real

from engineroom.kit.machine import Machine, machine
from labs.kit.bill import price_per_hour
from labs.kit.check import (
    close,
    exercise,
    require,
    require_formula,
    require_function,
    require_number,
    require_whole_number,
    shown,
    to_list,
)

WEIGHTS = {
    "8.03 billion parameters of 2 bytes each": (8.03e9, 2),
    "494,032,768 parameters of 4 bytes each": (494_032_768, 4),
    "1.54 billion parameters of 1 byte each": (1.54e9, 1),
    "70.6 billion parameters of half a byte each": (70.6e9, 0.5),
}


@exercise("00.card", version=1, title="Read the machine card", minutes=2)
def card(cores: object, engine: object) -> None:
    machine_card = machine()
    require(not isinstance(cores, str), "`cores` is text. Write the number alone, without quotes.")
    _check_cores(require_whole_number("cores", cores), machine_card)
    _check_engine(engine, machine_card.engines)


def _check_cores(cores: int, machine_card: Machine) -> None:
    solution = f"The row CPU says {machine_card.cores} cores: `cores = {machine_card.cores}`."
    if cores != machine_card.cores:
        require(
            cores != os.cpu_count(),
            f"The machine has {cores} cores, but this notebook may not use all of them. Read the row CPU.",
            solution,
        )
        require(
            cores not in map(round, (machine_card.memory_gib, machine_card.memory_available_gib)),
            f"{cores} is the memory in GiB. Cores are in the row CPU.",
            solution,
        )
    require(
        cores == machine_card.cores,
        f"`cores` is {cores}, but the card says otherwise. Read the row CPU: the number before the word cores.",
        solution,
    )


def _check_engine(engine: object, engines: list[str]) -> None:
    names = ", ".join(engines)
    solution = f"The row Engines says {names}: `engine = {engines[0]!r}`." if engines else ""
    require(engines, "No engine runs here; `make lab` sets vLLM up.")
    require(
        to_list(engine) is None,
        f"`engine` is a list: {shown(engine)}. Choose one name, in quotes.",
        solution,
    )
    require(
        isinstance(engine, str),
        f"`engine` is {shown(engine)}. Write one name from the row Engines, in quotes.",
        solution,
    )
    require(
        str(engine).strip().lower() in engines,
        f"`engine` is {engine!r}, which cannot run on this machine. Pick one from the row Engines.",
        solution,
    )


@exercise("00.weights", version=1, title="Compute how many gigabytes a model's weights take", minutes=5)
def weights(weight_gb: Callable[[float, float], float]) -> None:
    require_function(weight_gb, "weight_gb")
    require_formula(
        weight_gb,
        lambda n, size: n * size / 1e9,
        WEIGHTS,
        "Multiply the two arguments, then convert bytes to gigabytes.",
        "`return parameters * bytes_per_parameter / 1e9`",
        mistakes=[
            (
                lambda n, size: n * size * 8 / 1e9,
                "That is gigabits. `bytes_per_parameter` is in bytes already: do not multiply by 8.",
            ),
            (
                lambda n, size: n * size / 8e9,
                "`bytes_per_parameter` is in bytes already: do not divide by 8.",
            ),
            (lambda n, size: n * size, "That is bytes. A gigabyte is 1e9 bytes: divide."),
            (lambda n, size: n * size / 1e6, "That is megabytes. A gigabyte is 1e9 bytes."),
            (
                lambda n, size: n * size / 2**30,
                "That is gibibytes (2**30 bytes). GPU datasheets count in gigabytes of 1e9 bytes: divide by 1e9.",
            ),
            (
                lambda n, size: n / size / 1e9,
                "You divided by the bytes of a parameter. Two bytes each take twice the room: multiply.",
            ),
            (
                lambda n, _: n / 1e9,
                "That is the number of parameters in billions. Each takes `bytes_per_parameter` bytes.",
            ),
            (
                lambda n, _: n * 2 / 1e9,
                "You count two bytes for every parameter. Other formats take fewer or more: use the argument.",
            ),
            (
                lambda n, _: n * 4 / 1e9,
                "You count four bytes for every parameter. Other formats take fewer: use the argument.",
            ),
            (
                lambda n, size: n * int(size) / 1e9,
                "Half a byte became 0: `int()` and `//` drop the fraction of `bytes_per_parameter`.",
            ),
        ],
    )


@exercise("00.budget", version=1, title="Turn dollars into minutes of GPU", minutes=3)
def budget(minutes: object, dollars: object) -> None:
    amount = dollars if isinstance(dollars, int | float) else 0
    require(
        amount > 0,
        f"`budget_dollars` is {shown(dollars)}. Set it to a number above 0 in the first code cell.",
    )
    require(
        to_list(minutes) is None and isinstance(minutes, Real) and not isinstance(minutes, bool),
        "I expected a number of minutes, got {type}: {value}.",
    )
    answer = require_number(minutes)
    rate = price_per_hour("H100")
    require(rate > 0, "Your ENGINEROOM_PRICE_PER_HOUR is 0, and nothing buys endless minutes: set a price.")
    expected = amount / rate * 60
    if isclose(answer, expected, rel_tol=0.005, abs_tol=1):  # whole minutes are right too
        return
    _name_mistake(answer, amount, rate)
    require(
        False,
        f"${amount:g} at ${rate:.2f} an hour do not buy {answer:.4g} minutes. How many hours do they buy?",
        "Hours are `dollars / price_per_hour('H100')`; an hour has 60 minutes.",
    )


def _name_mistake(answer: float, dollars: float, rate: float) -> None:
    product = "You multiplied by the price. Dollars divided by dollars per hour are hours."
    inverse = "That is upside down: dollars divided by dollars per hour are hours."
    hours = dollars / rate
    for mistake, hint in [
        (hours, "Those are hours. The bill of a lesson is in minutes: multiply by 60."),
        (float(int(hours)) * 60, "The fraction of the last hour is lost: `//` and `int()` drop it."),
        (float(int(hours)), "Those are whole hours. Divide with `/`, then multiply by 60."),
        (hours * 3600, "Those are seconds. An hour has 60 minutes."),
        (hours / 60, "You divided by 60. An hour has 60 minutes: multiply."),
        (dollars * rate * 60, product),
        (dollars * rate, product),
        (rate / dollars * 60, inverse),
        (rate / dollars, inverse),
        (dollars * 60, "That is right for a GPU at one dollar an hour. Use the price."),
        (60 / rate, "That is what one dollar buys. You have `budget_dollars`."),
    ]:
        require(not close(answer, mistake, 0.01), hint)
