"""The inputs of each formula's check tell right from wrong, and each known mistake from every other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.kit.check import check
from labs.kit.formula import FormulaCheck, Mistakes
from labs.kit.requirements import close
from tests.labs.lessons.test_sabotage import ALL, right_answers


def formula_checks(id: str, monkeypatch: pytest.MonkeyPatch) -> list[FormulaCheck]:
    """The formulas that the exercise's check judges."""
    checks: list[FormulaCheck] = []
    judge = FormulaCheck.judge

    def note(self: FormulaCheck, function: Any) -> None:
        checks.append(self)
        judge(self, function)

    monkeypatch.setattr(FormulaCheck, "judge", note)
    for answer in right_answers(id)[:1]:
        check(id, *answer)
    return checks


def outputs(formula: Any, inputs: Any) -> list[Any]:
    return [formula(*arguments) for arguments in inputs.values()]


def wrong_indices(mistake: Any, formula: FormulaCheck) -> list[int]:
    """On which inputs the mistake's output is wrong."""
    expected = outputs(formula.reference, formula.inputs)
    bounds = [value if isinstance(value, tuple) else (value, value) for value in expected]
    values = outputs(mistake, formula.inputs)
    return [
        index
        for index, (value, (low, high)) in enumerate(zip(values, bounds, strict=True))
        if not (low <= value <= high or close(value, low) or close(value, high))
    ]


def shadowed(mistakes: Mistakes, formula: FormulaCheck) -> Iterator[tuple[str, str]]:
    """Pairs of hints of which the first is never shown, because the second's mistake agrees where it is wrong."""
    for index, (mistake, hint) in enumerate(mistakes):
        values, wrong = outputs(mistake, formula.inputs), wrong_indices(mistake, formula)
        for earlier, earlier_hint in mistakes[:index]:
            earlier_values = outputs(earlier, formula.inputs)
            if hint != earlier_hint and all(close(values[i], earlier_values[i]) for i in wrong):
                yield hint, earlier_hint


@pytest.mark.parametrize("id", ALL)
def test_each_mistake_is_wrong_and_has_its_own_hint(
    id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))
    for formula in formula_checks(id, monkeypatch):
        accepted = [hint for mistake, hint in formula.mistakes if not wrong_indices(mistake, formula)]
        assert not accepted
        assert not list(shadowed(formula.mistakes, formula))


@pytest.mark.parametrize(
    "id", ["00.weights", "01.counters", "01.batching", "02.latency", "02.goodput", "02.little"]
)
def test_the_checks_are_seen(id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))
    assert all(formula.mistakes for formula in formula_checks(id, monkeypatch))
    assert formula_checks(id, monkeypatch)
