"""Lesson 03's runs on the engine: predictions hold exactly, the picture shows the blocks, the challenge is fair."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import numpy as np
import pytest

from engineroom.engine.directory import EngineDir
from engineroom.load.trace import Trace
from labs.kit.replay import Arrival, replay
from labs.kv_cache_and_batching import runs
from labs.kv_cache_and_batching.blocks import BlockMap
from labs.kv_cache_and_batching.challenge import measure, prompts
from labs.kv_cache_and_batching.formulas import idle_slots
from labs.kv_cache_and_batching.strip import MAX_ROWS, BlockStrips, draw
from tests.labs.lessons.answers_03 import Blocks, StackBlocks

LENGTHS = [20, 9, 14, 3, 6, 12, 25, 8, 16, 10]
COMMON = [7 + i for i in range(40)]


def waiting(lengths: Sequence[int]) -> list[Arrival]:
    return [Arrival([50 * n + i for i in range(8)], length) for n, length in enumerate(lengths)]


@pytest.mark.parametrize("num_slots", [2, 3, 4])
def test_idle_slots_of_static_batching_are_as_predicted(engine: EngineDir, num_slots: int) -> None:
    static = replay(engine, waiting(LENGTHS), rule=runs.one_batch_at_a_time, max_batch_size=num_slots)
    in_flight = replay(engine, waiting(LENGTHS), max_batch_size=num_slots)
    assert runs.count_idle_slots(static, num_slots) == idle_slots(LENGTHS, num_slots)
    assert runs.count_idle_slots(in_flight, num_slots) < idle_slots(LENGTHS, num_slots)
    assert static.answers == in_flight.answers


def test_a_learner_s_allocator_changes_no_token(engine: EngineDir) -> None:
    trace = [Arrival([*COMMON, n], 20, step=2 * n) for n in range(4)]
    ours = replay(engine, trace, kv_tokens=512, reuse=True)
    for make_block_allocator in (Blocks, StackBlocks):
        theirs = replay(engine, trace, kv_tokens=512, reuse=True, make_block_allocator=make_block_allocator)
        assert theirs.answers == ours.answers
        assert theirs.num_reused_tokens == ours.num_reused_tokens == 3 * 32


def test_branches_copy_one_block_less_than_there_are(engine: EngineDir) -> None:
    ours = runs.branch(engine, COMMON, [1, 2, 3], 20)
    theirs = runs.branch(engine, COMMON, [1, 2, 3], 20, StackBlocks)
    assert ours == theirs
    assert ours.num_copied_blocks == 2
    assert len({tuple(answer) for answer in ours.answers}) == 3
    assert ours.num_blocks < sum(runs.branch(engine, COMMON, [seed], 20).num_blocks for seed in (1, 2, 3))


@pytest.fixture(scope="module")
def strips(engine: EngineDir) -> BlockStrips:
    """Three requests with 40 tokens in common, in a cache of 20 blocks of 16 tokens."""
    strips = BlockStrips(pause=0)
    replay(
        engine,
        [Arrival([*COMMON, n], 20 + n, 2 * n) for n in range(3)],
        kv_tokens=320,
        reuse=True,
        watch=strips,
    )
    return strips


def test_every_block_is_in_one_state_and_the_counts_add_up(strips: BlockStrips) -> None:
    states = [[blocks.state(index) for index in range(20)] for blocks in strips.maps]
    for blocks, row in zip(strips.maps, states, strict=True):
        assert row.count("free") + row.count("cached") == blocks.num_free_blocks
        assert row.count("shared") == blocks.num_shared_blocks
    assert max(row.count("shared") for row in states) == 2
    assert "cached" in states[-1] and not {"owned", "shared"} & set(states[-1])


def test_a_request_s_empty_places_are_less_than_a_block(strips: BlockStrips) -> None:
    assert all(0 <= num_tokens < 16 for blocks in strips.maps for num_tokens in blocks.num_empty_tokens)


def test_the_picture_draws_every_block_of_every_row(strips: BlockStrips) -> None:
    rows = strips.rows
    assert len(rows) <= MAX_ROWS and [rows[0][0], rows[-1][0]] == [1, len(strips.maps)]
    picture = draw(rows)
    legend, pattern = 5, 1
    assert picture.count("<rect") == 20 * len(rows) + legend + pattern
    labels = set(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    assert {"shared by several requests", "cached prefix, free", "free"} <= labels
    assert f"step {len(strips.maps)}" in labels
    assert re.search(r"At most 2 blocks are shared; at least \d+ are free", strips.alt)


def test_a_longer_run_still_begins_with_its_first_step_and_ends_with_its_last() -> None:
    for num_steps in range(1, 200):
        strips = BlockStrips()
        strips.maps = [BlockMap([()], [False], [], 1)] * num_steps
        steps = [step for step, _ in strips.rows]
        assert len(steps) <= MAX_ROWS and (steps[0], steps[-1]) == (1, num_steps)


def test_who_waited_is_read_from_the_order_of_events() -> None:
    together = [Trace(0, [1.0, 5.0]), Trace(0, [2.0, 6.0])]
    late = Trace(0, [5.5, 7.0])
    assert (runs.max_concurrent_streams(together), runs.waits_for_a_block(together)) == (2, 0)
    assert (runs.max_concurrent_streams([*together, late]), runs.waits_for_a_block([*together, late])) == (
        2,
        1,
    )


def test_the_challenge_counts_an_order_only_if_every_request_is_served(engine: EngineDir) -> None:
    for order in (lambda prompts: [0] * len(prompts), lambda prompts: [], lambda prompts: None):
        assert asyncio.run(measure(engine, order)).failure


def test_the_challenge_counts_the_prompt_tokens_that_were_computed(engine: EngineDir) -> None:
    """In the order of arrival, the gain is exactly 1. Another order computes another number of tokens."""
    as_they_arrived = asyncio.run(measure(engine, lambda prompts: np.arange(len(prompts))))
    assert (as_they_arrived.gain, as_they_arrived.failure) == (1, "")
    num_tokens = sum(map(len, prompts(engine.model.vocab_size)))
    backwards = asyncio.run(measure(engine, lambda prompts: list(range(len(prompts)))[::-1]))
    assert backwards.baseline == as_they_arrived.baseline
    assert backwards.attempt < num_tokens and backwards.attempt != backwards.baseline
