"""What can be wrong with leaving a stream, and with the proof that the engine stopped."""

from __future__ import annotations

from labs.deploy_with_triton.attempts import Departure
from labs.kit.check import require, require_mapping, require_names, require_whole_number, shown

READINGS = ("before", "received", "stopped", "later")


def check_departure(departure: Departure, max_tokens: int) -> None:
    """Raise Mistake unless the reader left early, cancelled, and proved it. `max_tokens`: of the whole answer."""
    require(
        not departure.stream_error, f"Triton sent an error: {' '.join(departure.stream_error.split())[:200]}"
    )
    value = departure.outcome.value
    proof = require_names(
        require_mapping(
            value, f"`leave` returned {shown(value)}, not a dictionary with {', '.join(READINGS)}."
        ),
        READINGS,
    )
    before, received, stopped, later = (require_whole_number(name, proof[name]) for name in READINGS)
    _check_received(received, departure)
    _check_cancelled(before, departure)
    _check_readings(before, stopped, later)
    require(
        stopped - before < max_tokens,
        f"The engine ran {stopped - before} steps for {max_tokens} tokens: you cancelled when the whole answer was "
        f"generated. Read fewer responses.",
    )
    _check_stopped(stopped, later, departure.steps_at_rest)


def _check_received(received: int, departure: Departure) -> None:
    require(
        departure.num_responses,
        "You read no response. A cancel before the first one proves little: read some responses first.",
    )
    require(
        not departure.read_to_end,
        f"You read all {departure.num_responses} responses: that is the whole answer. Leave earlier.",
    )
    require(
        received == departure.num_responses,
        f"`received` is {received}, but you read {departure.num_responses} responses. Count one for each turn of the "
        f"loop.",
    )


def _check_cancelled(before: int, departure: Departure) -> None:
    steps = departure.steps_at_rest - before
    require(
        departure.cancelled,
        f"You left the loop, but the stream was not cancelled: the engine went on for nobody, and had run {steps} "
        f"steps when it was stopped from outside. Leaving the loop cancels nothing.",
        "An async iterator of tritonclient has `cancel()`: call `answers.cancel()` after the loop.",
    )


def _check_readings(before: int, stopped: int, later: int) -> None:
    require(
        before <= stopped <= later,
        "A reading is larger than a later one. In which order did you take them?",
    )
    require(
        stopped > before,
        "`before` and `stopped` are equal, yet you received responses. Read `before` before the first response, and "
        "give the model time to publish its counters.",
    )


def _check_stopped(stopped: int, later: int, steps_at_rest: int) -> None:
    wait_longer = "`await asyncio.sleep(0.5)` after the cancel, and again before `later`."
    require(
        later == stopped,
        f"Between `stopped` and `later` the engine ran {later - stopped} more steps: its counters were old when you "
        f"read `stopped`. They are published once in a period: wait longer after the cancel.",
        wait_longer,
    )
    require(
        later == steps_at_rest,
        f"Your `later` says {later}, but the engine's counter came to rest at {steps_at_rest}: the counters were old "
        f"when you read both. Take them with `steps()`, and wait before each.",
        wait_longer,
    )
