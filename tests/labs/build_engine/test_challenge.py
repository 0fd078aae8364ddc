"""Lesson 05's open challenge, judged with a real engine: its figures are counts of steps and bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engineroom.engine.directory import EngineDir
from engineroom.load.workload import Turn
from labs.build_engine.challenge import CHALLENGE, judge
from labs.kit.challenge import ChallengeResult

TURNS = [Turn(20 + 3 * (n % 11), 10 + n % 7) for n in range(40)]
PLAN = {"max_batch_size": 6, "max_num_tokens": 48, "kv_tokens": 768}


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def judged(engine: EngineDir, plan: Any) -> ChallengeResult:
    return asyncio.run(judge(engine, TURNS, plan))


def test_a_smaller_cache_reaches_the_bar_and_raises_it(engine: EngineDir) -> None:
    result = judged(engine, PLAN)
    assert result and result.gain > 1.5
    assert not judged(engine, PLAN)
    assert CHALLENGE.bar() > result.gain


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PLAN | {"kv_tokens": 256, "max_batch_size": 1}, "times as many steps"),
        (PLAN | {"kv_tokens": 8}, "the KV cache holds"),
        (PLAN | {"max_batch_size": 64}, "`max_batch_size` 64 is more than the engine was built for"),
        (PLAN | {"max_num_tokens": 47.5}, "`max_num_tokens` must be a whole number"),
        (PLAN | {"kv_tokens": ...}, "`kv_tokens` must be a whole number"),
        ({"max_batch_size": 6}, "must be a dictionary with"),
        ([6, 48, 768], "must be a dictionary with"),
    ],
)
def test_a_plan_that_keeps_users_waiting_or_is_none_is_named(
    engine: EngineDir, plan: Any, message: str
) -> None:
    result = judged(engine, plan)
    assert not result and message in str(result)
    assert CHALLENGE.bar() == CHALLENGE.first_bar
