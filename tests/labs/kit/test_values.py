"""Values of many libraries become plain numbers, lists and dictionaries; what is none of these is left alone."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, UserDict, deque
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from labs.kit.values import LONGEST, is_number, plain, shown, to_dict, to_list, type_name


class Colour(IntEnum):
    RED = 3


class Letter(str, Enum):  # noqa: UP042 (as in older code)
    A = "a"


class Row(NamedTuple):
    a: int
    b: Any


@dataclass
class Record:
    a: int
    b: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (2.5, 2.5), (True, True), ("a", "a"), (Colour.RED, 3), (Letter.A, "a"),
        (np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (np.array(3), 3),
        (np.longdouble(2), 2.0), (torch.tensor(2.5), 2.5), (torch.tensor(2, dtype=torch.bfloat16), 2.0),
        (torch.tensor(True), True), (torch.tensor(1.5, requires_grad=True), 1.5), (pd.Series([7])[0], 7),
        (Fraction(7, 2), 3.5), (Decimal("4.5"), 4.5), (Decimal("1e999"), math.inf), (-Fraction(10**400), -math.inf),
        (timedelta(seconds=1.5), 1.5), (pd.Timedelta("2s"), 2.0),
    ],
)  # fmt: skip
def test_scalars(value: object, expected: object) -> None:
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "value",
    [None, ..., 1j, b"a", [1], (1,), {"a": 1}, np.zeros(2), torch.zeros(1), pd.NA, object(), len, int],
)
def test_what_is_no_scalar_stays_as_it_is(value: object) -> None:
    assert plain(value) is value


def test_numbers_that_are_none() -> None:
    assert math.isnan(plain(Decimal("sNaN")))
    assert not is_number(True) and not is_number("1") and is_number(10**400) and is_number(math.nan)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2], (1, 2), range(1, 3), deque([1, 2]), np.array([1, 2]), np.array([1.0, 2.0]), torch.tensor([1, 2]),
        pd.Series([1, 2]), pd.Index([1, 2]), pd.DataFrame({"a": [1, 2]}), {"a": 1, "b": 2}.values(),
        {1: 0, 2: 0}.keys(), [np.int64(1), Fraction(2)], Row(1, 2), memoryview(b"\x01\x02"),
    ],
)  # fmt: skip
def test_sequences(value: object) -> None:
    assert to_list(value) == [1, 2]


def test_iterators_are_read_once() -> None:
    assert to_list(map(int, "12")) == to_list(number for number in (1, 2)) == [1, 2]
    iterator = iter([1])
    assert to_list(iterator) == [1]
    assert to_list(iterator) == []


def test_an_endless_iterator_is_no_list() -> None:
    assert to_list(iter(int, 1)) is None
    assert len(to_list(range(LONGEST)) or []) == LONGEST


def test_an_error_in_a_generator_is_the_learners() -> None:
    with pytest.raises(ZeroDivisionError):
        to_list(1 / number for number in (1, 0))


@pytest.mark.parametrize(
    "value",
    ["ab", b"ab", {"a": 1}, {1, 2}, 3, None, len, int, pd.DataFrame({"a": [1], "b": [2]}), torch.tensor(1)],
)
def test_what_is_no_sequence(value: object) -> None:
    assert to_list(value) is None


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": 2.5}, OrderedDict(a=1, b=2.5), MappingProxyType({"a": 1, "b": 2.5}), UserDict(a=1, b=2.5),
        Counter({"a": 1, "b": 2.5}), pd.Series({"a": 1, "b": 2.5}), pd.DataFrame({"a": [1], "b": [2.5]}),
        Row(1, Fraction(5, 2)), Record(1, np.float64(2.5)), SimpleNamespace(a=1, b=2.5),
        {np.str_("a"): np.int64(1), "b": torch.tensor(2.5)}, {Letter.A: 1, "b": 2.5},
    ],
)  # fmt: skip
def test_mappings(value: object) -> None:
    assert to_dict(value) == {"a": 1, "b": 2.5}


@pytest.mark.parametrize(
    "value", [[("a", 1)], {"a"}, "a", 3, None, int, Record, Row, pd.DataFrame({"a": [1, 2]}), np.zeros(2)]
)
def test_what_is_no_mapping(value: object) -> None:
    assert to_dict(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(3), "3"), (np.float64(2.5), "2.5"), (Fraction(7, 2), "7/2"), (Decimal("2.50"), "2.50"),
        ("a", "'a'"), (..., "`...`"), (None, "None"), (len, "the function `len`"), ((n for n in ()), "a generator"),
        (torch.tensor([[1, 2], [3, 4]]), "tensor([[1, 2], [3, 4]])"),
    ],
)  # fmt: skip
def test_values_in_messages(value: object, text: str) -> None:
    assert shown(value) == text


def test_long_values_are_shortened() -> None:
    assert shown("x" * 500).endswith("…")
    assert len(shown(list(range(500)))) == 60


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "None"),
        (..., "`...`"),
        (np.int64(1), "int"),
        (Decimal(1), "float"),
        ([1], "list"),
        (np.str_("a"), "str"),
    ],
)
def test_names_of_types(value: object, name: str) -> None:
    assert type_name(value) == name
