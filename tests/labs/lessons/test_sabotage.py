"""Every check can fail: the empty answer, and a list of wrong answers, each with the hint that names its mistake."""

from __future__ import annotations

import itertools
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from engineroom import load
from labs.kit import course
from labs.kit.check import CheckResult, check, exercises
from labs.measure.examples import GOAL, RUN

LESSONS = [
    import_module(f"tests.labs.lessons.{path.stem}")
    for path in sorted(Path(__file__).parent.glob("answers_*.py"))
]
Answer = tuple[Any, ...]  # the values that a check gets
RIGHT: dict[str, list[Answer]] = {id: right for lesson in LESSONS for id, right in lesson.RIGHT.items()}
WRONG: list[tuple[str, Answer, str]] = [wrong for lesson in LESSONS for wrong in lesson.WRONG]
ALL = [exercise.id for lesson in course.LESSONS for exercise in exercises(lesson)]
NUM_RIGHT, NUM_WRONG = 4, 8  # at least, for each exercise


def right_answers(id: str) -> list[Answer]:
    """Right answers in several styles; the first is the usual one."""
    return RIGHT.get(id, [])


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def num_learner_values(id: str) -> int:
    """How many of the check's values the learner writes."""
    return {"00.card": 2, "01.waves": 2, "02.goodput": 2, "11.counts": 2, "11.roof": 2}.get(id, 1)


def test_every_exercise_is_here() -> None:
    assert sorted(RIGHT) == sorted(ALL)


@pytest.mark.parametrize("id", ALL)
def test_every_exercise_has_right_answers_in_several_styles_and_wrong_ones(id: str) -> None:
    assert len(right_answers(id)) >= NUM_RIGHT
    assert sum(name == id for name, _, _ in WRONG) >= NUM_WRONG


@pytest.mark.parametrize(("id", "style"), [(id, n) for id in ALL for n in range(len(right_answers(id)))])
def test_a_right_answer_passes_in_any_style(id: str, style: int) -> None:
    result = check(id, *right_answers(id)[style])
    assert result, result


@pytest.mark.parametrize("id", ALL)
def test_an_empty_answer_is_not_written_yet(id: str) -> None:
    values = [..., ...][: num_learner_values(id)] + list(right_answers(id)[0][num_learner_values(id) :])
    result = check(id, *values)
    assert not result
    assert "not written yet" in str(result)


@pytest.mark.parametrize(("id", "values", "hint"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_a_wrong_answer_is_named(id: str, values: tuple[Any, ...], hint: str) -> None:
    result: CheckResult = check(id, *values)
    assert result.verdict == "NOT YET", result
    assert hint in str(result)


@pytest.mark.parametrize("id", ALL)
def test_hints_do_not_run_out(id: str) -> None:
    """The same mistake three times: still a hint, never an exception."""
    values = next(values for name, values, _ in WRONG if name == id)
    for _ in itertools.repeat(None, 3):
        assert check(id, *values).verdict == "NOT YET"


def test_right_answers_use_the_papers_numbers() -> None:
    """The checks expect what engineroom.load computes, not numbers of their own."""
    assert load.throughput(RUN) == pytest.approx(14 / 4.1)
    assert load.goodput(RUN, GOAL) == pytest.approx(2 / 4.1)
