"""What a check requires of an answer: right values pass in any form, others get a hint."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from labs.kit.formula import require_formula
from labs.kit.requirements import (
    Mistake,
    close,
    difference,
    require_mapping,
    require_names,
    require_number,
    require_sequence,
    require_whole_number,
)

INPUTS = {"1 and 3": (1, 3), "5 and 7": (5, 7), "0.5 and 8": (0.5, 8)}


def area(width: float, height: float) -> float:
    """Of a triangle."""
    return width * height / 2


def formula_hint(function: Any, **options: Any) -> str:
    with pytest.raises(Mistake) as caught:
        require_formula(function, area, INPUTS, "Half of the product.", "`width * height / 2`", **options)
    return caught.value.args[0]


@pytest.mark.parametrize("value", [2.0, 2, np.float32(2), Fraction(2), Decimal("2.001"), 2.009])
def test_close(value: object) -> None:
    assert close(value, 2)


@pytest.mark.parametrize("value", [2.02, -2, "2", None, True, math.nan, math.inf, 10**400, [2]])
def test_not_close(value: object) -> None:
    assert not close(value, 2)


def test_infinities_are_close_to_themselves() -> None:
    assert close(math.inf, math.inf) and close(10**400, math.inf) and not close(math.nan, math.nan)


def test_numbers() -> None:
    assert require_number(np.float32(2.5)) == 2.5
    assert require_number(-(10**400)) == -math.inf
    with pytest.raises(Mistake, match="inverse"):
        require_number(0.25, {0.25: "That is the inverse."})


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, "Does it `return`"),
        (..., "Does it `return`"),
        ("3", "That is text"),
        ([3], "without a list"),
        (True, "not a number"),
        ({}, "not a number"),
        (1j, "not a number"),
    ],
)
def test_no_numbers(value: object, hint: str) -> None:
    with pytest.raises(Mistake, match=hint):
        require_number(value)


@pytest.mark.parametrize("value", [4, 4.0, np.int64(4), Fraction(4), Decimal("4.0")])
def test_whole_numbers(value: object) -> None:
    assert require_whole_number("n", value) == 4


@pytest.mark.parametrize("value", [4.5, "4", True, None, math.nan, math.inf, [4], 10**400])
def test_no_whole_numbers(value: object) -> None:
    with pytest.raises(Mistake, match="whole number"):
        require_whole_number("n", value)


def test_limits_of_whole_numbers() -> None:
    with pytest.raises(Mistake, match="1 or more"):
        require_whole_number("n", 0, at_least=1)


def test_collections() -> None:
    assert require_sequence((1, np.int64(2)), "no list") == [1, 2]
    assert require_mapping(MappingProxyType({"a": np.int64(1)}), "no mapping") == {"a": 1}
    with pytest.raises(Mistake, match="no list"):
        require_sequence({1}, "no list")
    with pytest.raises(Mistake, match="no mapping"):
        require_mapping([1], "no mapping")


def test_names() -> None:
    assert require_names({"b": np.int64(2), "a": 1}, ["a", "b"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([1], "a dictionary with a, b, got"),
        ({"a": 1}, "has no b"),
        ({"a": 1, "b": 2, "c": 3}, "also has 'c'"),
        ({"a": 1, "b": ...}, "Still `...`: b"),
    ],
)
def test_wrong_names(values: object, hint: str) -> None:
    with pytest.raises(Mistake, match=hint):
        require_names(values, ["a", "b"])


def test_a_difference_is_named_only_when_it_shows() -> None:
    assert difference([16, 6], [16, 7]) == " I expected [16, 6], got [16, 7]."
    assert difference([16, 6], [16, 6]) == ""
    assert difference(2, np.int64(2)) == ""


@pytest.mark.parametrize("rounding", [lambda x: x, lambda x: round(x, 2), np.float16, Fraction, Decimal])
def test_a_right_formula_passes(rounding: Any) -> None:
    require_formula(lambda width, height: rounding(area(width, height)), area, INPUTS)


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda width, height: width * height, "Twice as much."),
        (lambda width, height: width * height // 2, "The fraction is lost"),
        (lambda width, height: round(area(width, height)), "rounded to a whole number"),
        (lambda width, height: -area(width, height), "The sign is reversed"),
        (lambda width, height: 1.5, "the same for every input"),
        (lambda width, height: area(width, height) + 1, "Half of the product"),
        (lambda width, height: math.nan, "and is nan"),
        (lambda width, height: math.inf, "and is inf"),
        (
            lambda width, height: None if height == 7 else area(width, height),
            "For 5 and 7 the function gave None",
        ),
    ],
)
def test_a_wrong_formula_is_named(function: Any, hint: str) -> None:
    mistakes = [(lambda width, height: width * height, "Twice as much.")]
    assert hint in formula_hint(function, mistakes=mistakes)


def test_a_mistake_needs_to_agree_only_where_the_answer_is_wrong() -> None:
    def right_for_width_1(width: float, height: float) -> float:
        return area(width, height) if width == 1 else width * height

    mistakes = [(lambda width, height: width * height, "Twice as much.")]
    assert formula_hint(right_for_width_1, mistakes=mistakes) == "Twice as much."


def test_a_range_of_right_numbers() -> None:
    inputs = {"ten values": (list(range(10)),), "five values": (list(range(5)),)}
    for function in (max, lambda values: max(values) - 0.5, lambda values: max(values) - 1):
        require_formula(function, lambda values: (max(values) - 1, max(values)), inputs)
    with pytest.raises(Mistake, match="between 8 and 9, and is 0"):
        require_formula(min, lambda values: (max(values) - 1, max(values)), inputs)
