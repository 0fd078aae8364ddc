"""Lesson 06's replay: what it notes is what the engine did, and a rule of one's own is obeyed."""

from __future__ import annotations

import pytest

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError
from labs.run_engine import Arrival, Run, replay
from labs.run_engine.simulation import right

TRACE = [
    Arrival([7 * n + i for i in range(length)], 12 + n, 2 * n) for n, length in enumerate((3, 90, 40, 16, 33))
]


@pytest.fixture(scope="module")
def run(engine: EngineDir) -> Run:
    return replay(engine, TRACE, kv_tokens=2048)


def test_answers_are_the_executors(run: Run, engine: EngineDir) -> None:
    one = Executor(engine, KvCacheConfig(max_tokens=2048))
    alone = [one.generate([prompt], SamplingParams(max_tokens=answer))[0] for prompt, answer, _ in TRACE]
    assert run.answers == alone


def test_every_token_of_every_prompt_and_answer_is_noted_once(run: Run) -> None:
    for number, (prompt, answer, step) in enumerate(TRACE):
        assert sum(one.context.get(number, 0) for one in run.steps) == len(prompt)
        got = run.token_steps(number)
        assert len(got) == answer
        assert sum(number in one.generation for one in run.steps) == answer - 1
        assert min(got) >= step


def test_limits_hold_in_every_step(run: Run, engine: EngineDir) -> None:
    most = engine.build.max_num_tokens or 0
    assert all(sum(step.context.values()) + len(step.generation) <= most for step in run.steps)
    assert run.together <= engine.build.max_batch_size
    smaller = replay(engine, TRACE, kv_tokens=2048, max_num_tokens=20, max_batch_size=2)
    assert max(step.together for step in smaller.steps) == 2
    assert max(sum(step.context.values()) for step in smaller.steps) <= 20
    assert smaller.answers == run.answers


def test_blocks_are_free_in_the_end(run: Run) -> None:
    assert run.steps[0].blocks > 0
    assert run.steps[-1].blocks == 0


def test_time_to_first_token_counts_from_the_arrival(run: Run) -> None:
    """Prompts of 3, 90, 40, 16 and 33 tokens come every second step, into steps of 48 tokens."""
    assert run.ttft == [1, 2, 1, 1, 1]
    assert run.clock == sorted(run.clock)
    assert len(run.clock) == len(run.steps)


def test_a_rule_that_admits_all_pauses_and_ends(engine: EngineDir, run: Run) -> None:
    made = replay(engine, TRACE, rule=lambda *_: True, kv_tokens=160)
    assert made.paused
    assert made.answers == run.answers


def test_a_rule_that_admits_nobody_is_told(engine: EngineDir) -> None:
    with pytest.raises(RuntimeError, match="nobody start"):
        replay(engine, TRACE, rule=lambda *_: False)


def test_a_request_beyond_the_limits_is_refused(engine: EngineDir) -> None:
    with pytest.raises(RequestError, match="max_input_len"):
        replay(engine, [Arrival([1] * 193, 1)])


def test_the_right_rule_is_the_engines_default(engine: EngineDir) -> None:
    ruled, default = (replay(engine, TRACE, kv_tokens=160, **how) for how in ({"rule": right}, {}))
    assert [step.waiting for step in ruled.steps] == [step.waiting for step in default.steps]
    assert not ruled.paused


def test_nobody_arrives_before_the_first_step(engine: EngineDir) -> None:
    with pytest.raises(ValueError, match="before step 0"):
        replay(engine, [Arrival([1], 1, -1)])
