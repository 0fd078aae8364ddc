"""An open challenge: the bar rises with the best attempt, and an attempt with worse answers never counts."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from engineroom.kit.errors import UserError
from labs.kit import progress
from labs.kit.challenge import STEP, Challenge, ChallengeResult, Measurement

CHALLENGE = Challenge("99.challenge", first_bar=1.2)


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def judge(measurement: Measurement | Exception) -> ChallengeResult:
    async def measure() -> Measurement:
        if isinstance(measurement, Exception):
            raise measurement
        return measurement

    return asyncio.run(CHALLENGE.judge(measure()))


def tokens(attempt: float, failure: str = "") -> Measurement:
    return Measurement(attempt, 120, "tokens", failure=failure)


def test_the_first_bar_counts_from_the_baseline() -> None:
    assert not judge(tokens(101))
    assert progress.best_gain(CHALLENGE.id) == 0
    assert judge(tokens(100))


def test_the_bar_rises_with_the_best_attempt_and_never_falls() -> None:
    assert judge(tokens(60))
    assert CHALLENGE.bar() == pytest.approx(2 * STEP)
    assert not judge(tokens(60)), "the same attempt again is no progress"
    assert judge(tokens(40))
    progress.record_gain(CHALLENGE.id, 1.5)
    assert CHALLENGE.bar() == pytest.approx(3 * STEP)


def test_worse_answers_never_count() -> None:
    result = judge(tokens(1, failure="3 of 8 answers are wrong."))
    assert not result and "3 of 8 answers are wrong" in str(result)
    assert CHALLENGE.bar() == CHALLENGE.first_bar


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -5.0])
@pytest.mark.parametrize("lower_is_better", [True, False])
def test_a_value_that_is_no_measurement_has_no_gain(value: float, lower_is_better: bool) -> None:
    assert not judge(Measurement(value, 100, "tokens", lower_is_better))
    assert not judge(Measurement(100, value, "tokens", not lower_is_better))


def test_higher_can_be_better() -> None:
    assert judge(Measurement(240, 120, "tokens/s", lower_is_better=False)).gain == 2


def test_gains_and_attempts_share_one_file() -> None:
    judge(tokens(60))
    progress.record_attempt("00.card", 1, passed=True)
    judge(tokens(40))
    assert progress.load().status("00.card", 1) == "done"
    assert progress.best_gain(CHALLENGE.id) == 3


@pytest.mark.parametrize("error", [UserError("No such flag."), ZeroDivisionError("division by zero")])
def test_an_attempt_that_fails_is_told_why(error: Exception) -> None:
    result = judge(error)
    assert not result and str(error) in str(result)
    assert CHALLENGE.bar() == CHALLENGE.first_bar
