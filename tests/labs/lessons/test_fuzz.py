"""Checks survive whatever an answer does: the verdict is PASSED or NOT YET with a sentence; the next check works."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from labs.kit import calls
from labs.kit.check import CheckResult, check
from tests.labs.lessons.test_sabotage import ALL, num_learner_values, right_answers


class Hostile:
    """An object that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")

    __hash__ = None  # type: ignore[assignment]


def odd_values() -> Iterator[object]:
    """Fresh ones each time: generators can be read once."""
    yield from (None, True, -1, 0, 0.5, 10**400, -(10**400), float("nan"), float("inf"), -float("inf"), 1j)
    yield from (
        "",
        "text",
        b"bytes",
        [],
        {},
        (),
        set(),
        [None],
        [float("nan")] * 5,
        {"a": None},
        {1: 2},
        [[1], [2]],
    )
    yield from (iter([]), (n for n in range(3)), range(4), map(int, "12"), object(), int, len, lambda: None)
    yield from (np.array([]), np.zeros((2, 3)), np.float32(-1), np.array(float("nan")), np.array(["a"]))
    yield from (pd.Series([1.5]), pd.DataFrame({"a": [1, 2], "b": [3, 4]}), pd.NA, pd.NaT)
    yield from (
        torch.zeros(3),
        torch.tensor(-1),
        torch.zeros(2, 2),
        torch.zeros(3, device="meta"),
        torch.tensor([]),
    )
    yield from (NotImplementedError(), ValueError, Hostile(), sys.stdout)


def raising(error: BaseException) -> Callable[..., object]:
    def raise_it(*_: object) -> object:
        raise error

    return raise_it


async def awaited(*_: object) -> object:
    return 1


def recursive(*arguments: object) -> object:
    return recursive(*arguments)


def printing(*arguments: object) -> None:
    print("arguments:", len(arguments))


def first_argument(*arguments: object) -> object:
    return arguments[0]


def all_arguments(*arguments: object) -> object:
    return arguments


BEHAVIOURS: list[Callable[..., object]] = [
    printing,
    first_argument,
    all_arguments,
    recursive,
    awaited,
    *(raising(error) for error in (
        ValueError("no"), ZeroDivisionError(), KeyError("a"), StopIteration(), AttributeError("b"), RuntimeError("c"),
        NotImplementedError(), AssertionError(), MemoryError(), SystemExit(3), GeneratorExit(), BaseException("d"))),
]  # fmt: skip


def right_until(
    function: Callable[..., object], calls: int, behaviour: Callable[..., object]
) -> Callable[..., object]:
    """The right function for that many calls, then another."""
    remaining = iter(range(calls))

    def wrapped(*arguments: object) -> object:
        return (function if next(remaining, None) is not None else behaviour)(*arguments)

    return wrapped


def mutate(value: object) -> None:
    """Empty or change everything in a value that can be changed."""
    if isinstance(value, list):
        for item in value:
            mutate(item)
        value.clear()
    elif isinstance(value, dict):
        value.clear()
    elif isinstance(value, torch.Tensor):
        value.zero_()
    elif hasattr(value, "__dict__"):
        for name in list(vars(value)):
            mutate(getattr(value, name))
            try:
                setattr(value, name, None)
            except (AttributeError, TypeError):
                continue


def functions(answer: tuple[Any, ...]) -> list[int]:
    return [index for index, value in enumerate(answer) if callable(value)]


def substituted(answer: tuple[Any, ...], index: int, value: object) -> tuple[Any, ...]:
    return (*answer[:index], value, *answer[index + 1 :])


def require_verdict(result: CheckResult) -> None:
    assert result.verdict in ("PASSED", "NOT YET"), result
    assert len(result.message.split()) >= 3
    assert result._repr_html_()


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


MAY_NOT_CHANGE = {"06.admission"}  # a scheduler's rule that changes its arguments is wrong
WITH_FUNCTIONS = [id for id in ALL if right_answers(id) and functions(right_answers(id)[0])]


@pytest.mark.parametrize("calls_before", [0, 1, 3])
@pytest.mark.parametrize("id", WITH_FUNCTIONS)
def test_a_function_that_is_right_at_first(id: str, calls_before: int) -> None:
    answer = right_answers(id)[0]
    for index in functions(answer)[: num_learner_values(id)]:
        for behaviour in BEHAVIOURS:
            function = right_until(answer[index], calls_before, behaviour)
            require_verdict(check(id, *substituted(answer, index, function)))


@pytest.mark.parametrize("calls_before", [0, 1])
@pytest.mark.parametrize("id", WITH_FUNCTIONS)
def test_a_function_that_returns_odd_values(id: str, calls_before: int) -> None:
    answer = right_answers(id)[0]
    for index in functions(answer)[: num_learner_values(id)]:
        for number in range(len(list(odd_values()))):
            function = right_until(answer[index], calls_before, lambda *_, n=number: list(odd_values())[n])
            require_verdict(check(id, *substituted(answer, index, function)))


@pytest.mark.parametrize("id", ALL)
def test_odd_values(id: str) -> None:
    """In the place of each value that the learner writes, and of each entry of one."""
    answer = right_answers(id)[0]
    for index in range(num_learner_values(id)):
        for value in odd_values():
            require_verdict(check(id, *substituted(answer, index, value)))
        entries = answer[index]
        for name in (
            entries if isinstance(entries, dict) else range(len(entries) if isinstance(entries, list) else 0)
        ):
            for value in odd_values():
                changed = copy.copy(entries)
                changed[name] = value
                require_verdict(check(id, *substituted(answer, index, changed)))


@pytest.mark.parametrize("id", WITH_FUNCTIONS)
def test_a_function_that_changes_its_arguments(id: str) -> None:
    """It gets copies: a right one passes, and the next check is not affected."""
    answer = right_answers(id)[0]
    for index in functions(answer)[: num_learner_values(id)]:

        def mutating(*arguments: object, right: Callable[..., object] = answer[index]) -> object:
            output = right(*arguments)
            for argument in arguments:
                mutate(argument)
            return output

        result = check(id, *substituted(answer, index, mutating))
        assert result or (id in MAY_NOT_CHANGE and "Your rule changes" in result.message), result
    assert check(id, *answer)


@pytest.mark.parametrize("calls_before", [0, 1])
@pytest.mark.parametrize("id", WITH_FUNCTIONS)
def test_a_function_that_does_not_return(id: str, calls_before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "DEADLINE", 2.0)
    answer = right_answers(id)[0]
    called: list[bool] = []

    def sleep(*_: object) -> None:
        called.append(True)
        while True:
            with suppress(Exception):  # a learner's own net
                time.sleep(600)

    for index in functions(answer)[: num_learner_values(id)]:
        called.clear()
        result = check(id, *substituted(answer, index, right_until(answer[index], calls_before, sleep)))
        assert result.verdict == ("NOT YET" if called else "PASSED")
        assert not called or "was still running" in result.message
    assert check(id, *answer)


@pytest.mark.parametrize("id", WITH_FUNCTIONS)
def test_interrupting_a_check_ends_it(id: str) -> None:
    """The stop button: KeyboardInterrupt is the learner's own, no verdict."""
    answer = right_answers(id)[0]
    for index in functions(answer)[: num_learner_values(id)]:
        called: list[bool] = []

        def interrupt(*_: object, called: list[bool] = called) -> None:
            called.append(True)
            raise KeyboardInterrupt

        try:
            result = check(id, *substituted(answer, index, interrupt))
        except KeyboardInterrupt:
            assert called
        else:
            assert not called, result
    assert check(id, *answer)
