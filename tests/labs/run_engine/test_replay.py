"""Lesson 06's replay: it records what the engine did, and it obeys the learner's admission rule."""

from __future__ import annotations

import pytest

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import RequestError
from engineroom.engine.runtime.sampling import SamplingParams
from labs.run_engine import Arrival, Replay, replay
from labs.run_engine.simulation import reference_rule

TRACE = [
    Arrival([7 * n + i for i in range(length)], 12 + n, 2 * n) for n, length in enumerate((3, 90, 40, 16, 33))
]


@pytest.fixture(scope="module")
def run(engine: EngineDir) -> Replay:
    return replay(engine, TRACE, kv_tokens=2048)


def test_answers_are_the_executors(run: Replay, engine: EngineDir) -> None:
    executor = Executor(engine, KvCacheConfig(max_tokens=2048))
    alone = [
        executor.generate([arrival.token_ids], SamplingParams(max_tokens=arrival.max_tokens))[0]
        for arrival in TRACE
    ]
    assert run.answers == alone


def test_every_token_of_every_prompt_and_answer_is_recorded_once(run: Replay) -> None:
    for index, arrival in enumerate(TRACE):
        assert sum(step.context.get(index, 0) for step in run.steps) == len(arrival.token_ids)
        token_steps = run.token_steps(index)
        assert len(token_steps) == arrival.max_tokens
        assert sum(index in step.generation for step in run.steps) == arrival.max_tokens - 1
        assert min(token_steps) >= arrival.step


def test_limits_hold_in_every_step(run: Replay, engine: EngineDir) -> None:
    limits = engine.limits
    for step in run.steps:
        assert sum(step.context.values()) + len(step.generation) <= limits.max_num_tokens
    assert run.largest_batch <= limits.max_batch_size
    smaller = replay(engine, TRACE, kv_tokens=2048, max_num_tokens=20, max_batch_size=2)
    assert smaller.largest_batch == 2
    assert max(sum(step.context.values()) for step in smaller.steps) <= 20
    assert smaller.answers == run.answers


def test_all_blocks_are_free_in_the_end(run: Replay) -> None:
    assert run.steps[0].num_used_blocks > 0
    assert run.steps[-1].num_used_blocks == 0


def test_time_to_first_token_counts_from_the_arrival(run: Replay) -> None:
    """Prompts of 3, 90, 40, 16 and 33 tokens come every second step, into steps of 48 tokens."""
    assert run.ttft_steps == [1, 2, 1, 1, 1]
    assert run.step_end_times == sorted(run.step_end_times)
    assert len(run.step_end_times) == len(run.steps)


def test_a_rule_that_admits_all_pauses_and_ends(engine: EngineDir, run: Replay) -> None:
    permissive = replay(engine, TRACE, rule=lambda *_: True, kv_tokens=160)
    assert permissive.num_preemptions
    assert permissive.answers == run.answers


def test_a_rule_that_admits_no_request_is_found_out(engine: EngineDir) -> None:
    with pytest.raises(RuntimeError, match="lets none start"):
        replay(engine, TRACE, rule=lambda *_: False)


def test_a_request_beyond_the_limits_is_refused(engine: EngineDir) -> None:
    with pytest.raises(RequestError, match="max_input_len"):
        replay(engine, [Arrival([1] * 193, 1)])


def test_the_right_rule_is_the_engines_default(engine: EngineDir) -> None:
    ruled = replay(engine, TRACE, kv_tokens=160, rule=reference_rule)
    default = replay(engine, TRACE, kv_tokens=160)
    assert [step.waiting for step in ruled.steps] == [step.waiting for step in default.steps]
    assert not ruled.num_preemptions


def test_no_request_arrives_before_the_first_step(engine: EngineDir) -> None:
    with pytest.raises(ValueError, match="before step 0"):
        replay(engine, [Arrival([1], 1, -1)])
