"""The checks of lesson 10's exercises."""

from __future__ import annotations

from collections.abc import Callable

from labs.deploy_with_triton import check_config, check_leave, check_roll_out
from labs.deploy_with_triton.attempts import Departure, Outcome, RollOut
from labs.kit.check import Mistake, exercise, require, require_function


@exercise("10.config", version=1, title="Write a config.pbtxt", minutes=12)
def config(text: str) -> None:
    check_config.check_config(text)


@exercise("10.cancel", version=1, title="Cancel, and prove that the engine stopped", minutes=10)
def cancel(leave: Callable[..., object], departure: Departure, max_tokens: int) -> None:
    require_function(leave, "leave")
    require(isinstance(departure, Departure), "Pass what `try_leave` returned.")
    _check_outcome("leave", departure.outcome)
    check_leave.check_departure(departure, max_tokens)


@exercise("10.rollout", version=1, title="A new version, no lost request", minutes=12)
def rollout(
    roll_out: Callable[..., object], attempt: RollOut, new_engine_path: str, old_token_ids: list[int]
) -> None:
    require_function(roll_out, "roll_out")
    require(isinstance(attempt, RollOut), "Pass what `try_roll_out` returned.")
    if attempt.outcome.timed_out:
        raise Mistake(check_roll_out.still_waiting(attempt))
    _check_outcome("roll_out", attempt.outcome)
    check_roll_out.check_roll_out(attempt, new_engine_path, old_token_ids)


def _check_outcome(name: str, outcome: Outcome) -> None:
    """Raise Mistake unless the function returned; raises what it raised, which `check` names with its line."""
    if outcome.error:
        raise outcome.error
    require(
        not outcome.not_awaited,
        f"`{name}` calls `{', '.join(outcome.not_awaited)}` without `await`: that only creates a coroutine, and "
        f"nothing runs.",
    )
    require(
        not outcome.timed_out,
        f"`{name}` had not returned when the time was up. Which of its loops never ends?",
    )
