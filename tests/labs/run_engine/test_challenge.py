"""Lesson 06's open challenge, judged with a real engine: its figures are counts of steps and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from labs.kit.challenge import ChallengeResult
from labs.kit.replay import AdmissionRule
from labs.run_engine.challenge import CHALLENGE, judge
from labs.run_engine.simulation import reference_rule


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def expects_short_answers(request: Request, running: Sequence[Request], block_manager: BlockManager) -> bool:
    blocks_to_come = sum(
        block_manager.blocks_needed((len(other.token_ids) + other.max_total_tokens) // 2)
        - len(other.block_table.block_ids)
        for other in [request, *running]
    )
    return blocks_to_come <= block_manager.num_free_blocks


def judged(engine: EngineDir, rule: AdmissionRule) -> ChallengeResult:
    return asyncio.run(judge(engine, rule))


def test_a_rule_that_expects_shorter_answers_reaches_the_bar(engine: EngineDir) -> None:
    result = judged(engine, expects_short_answers)
    assert result, result
    assert CHALLENGE.bar() > result.gain


def test_the_baseline_is_no_progress(engine: EngineDir) -> None:
    assert judged(engine, reference_rule).gain == 1


def test_pauses_without_end_and_errors_are_named(engine: EngineDir) -> None:
    assert "times the baseline's context" in str(judged(engine, lambda *_: True))
    assert "wait for ever" in str(judged(engine, lambda *_: False))
    assert "TypeError" in str(judged(engine, lambda request: True))
