"""What a cell needs from earlier exercises: one sentence instead of an error when it is not there."""

from __future__ import annotations

import math

from labs.kit.learner import is_unwritten
from labs.kit.values import is_number, plain, shown, to_list


class Unfinished(Exception):
    """A cell needs an exercise that is not done yet; a notebook shows the message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def needs(exercise: str, *values: object) -> None:
    """Raise Unfinished when one of ``values``, the answers that this cell needs, is not written yet."""
    if any(is_unwritten(value) or (isinstance(value, list) and not value) for value in values):
        raise Unfinished(
            f"This cell continues with your answer to {exercise}: finish that first, then run this cell."
        )


def needs_number(exercise: str, value: object) -> float:
    """Return an answer as an int or a float. Raises Unfinished unless it is a finite number of any library."""
    needs(exercise, value)
    number = plain(value)
    if not is_number(number) or not math.isfinite(number):
        raise Unfinished(
            f"This cell continues with your answer to {exercise}, which is {shown(value)} and should be a number: "
            f"finish that first, then run this cell."
        )
    return number


def needs_numbers(exercise: str, values: object) -> list[float]:
    """Return an answer as a list of numbers. Raises Unfinished unless it is a sequence of at least one, all finite."""
    needs(exercise, values)
    elements = to_list(values)
    if not elements:
        raise Unfinished(
            f"This cell continues with your answer to {exercise}, which is {shown(values)} and should be a list of "
            f"numbers: finish that first, then run this cell."
        )
    return [needs_number(exercise, element) for element in elements]
