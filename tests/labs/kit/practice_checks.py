"""Checks as an author writes them, for the tests of check and progress."""

from __future__ import annotations

from labs.kit.check import Mistake, exercise, require


@exercise("01.times", version=1, title="Time each token", minutes=5)
def times(value: object) -> None:
    require(isinstance(value, list), "I expected a list of seconds, got {type}.", "Use a list.", "[0.1, 0.2]")
    require(all(one >= 0 for one in value), "No time is negative; you gave {value}.")


@exercise("01.mean", version=2, title="Write the mean", minutes=3)
def mean(function: object) -> None:
    require(callable(function), "Write a function, not a {type}.")
    if function([2, 4]) == 6:
        raise Mistake("That is the sum. Divide by how many there are.")
    require(function([2, 4]) == 3, "The mean of 2 and 4 is 3.")


@exercise("02.lenient", version=1, title="Anything goes", minutes=1)
def lenient(value: object) -> None:
    pass


@exercise("02.broken", version=1, title="A check with a bug", minutes=1)
def broken(value: object) -> None:
    raise KeyError("oops")
