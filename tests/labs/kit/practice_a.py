"""The checks of a first lesson as an author writes them, for the tests of check and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labs.kit.check import Mistake, exercise, require


@exercise("01.times", version=1, title="Time each token", minutes=5)
def times(seconds: Any) -> None:
    require(
        isinstance(seconds, list), "I expected a list of seconds, got {type}.", "Use a list.", "[0.1, 0.2]"
    )
    require(all(time >= 0 for time in seconds), "No time is negative; you gave {value}.")


@exercise("01.mean", version=2, title="Write the mean", minutes=3)
def mean(function: Callable[[list[int]], float]) -> None:
    require(callable(function), "Write a function, not a {type}.")
    if function([2, 4]) == 6:
        raise Mistake("That is the sum. Divide by how many there are.")
    require(function([2, 4]) == 3, "The mean of 2 and 4 is 3.")
