"""The arithmetic of lesson 03 agrees with the engine that it describes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from engineroom.checkpoint import Checkpoint
from engineroom.engine.config import Limits
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Scheduler
from labs.kit.memory import kv_bytes_per_token
from labs.kv_cache_and_batching.formulas import bytes_per_token, cached_tokens, max_concurrency
from tests.engineroom.engine.conftest import COURSE

TOKENS = st.lists(st.integers(0, 1), max_size=60)


def test_bytes_per_token_are_those_of_the_checkpoint(checkpoint: Checkpoint) -> None:
    config = json.loads((COURSE / "config.json").read_text())
    assert bytes_per_token(config, 4) == kv_bytes_per_token(checkpoint.model, "float32")


@given(num_blocks=st.integers(1, 60), prompt_len=st.integers(1, 90), max_tokens=st.integers(1, 90))
def test_as_many_requests_start_as_fit(num_blocks: int, prompt_len: int, max_tokens: int) -> None:
    """Under guaranteed_no_evict, with slots and tokens of a step for all requests."""
    limits = Limits(max_batch_size=64, max_input_len=100, max_seq_len=200, max_num_tokens=8192)
    scheduler = Scheduler(limits, BlockManager(num_blocks, 32, enable_block_reuse=False))
    for _ in range(64):
        scheduler.waiting.append(Request([1] * prompt_len, SamplingParams(max_tokens=max_tokens)))
    scheduler.schedule()
    assert len(scheduler.running) == min(max_concurrency(num_blocks, 32, prompt_len, max_tokens), 64)


@given(earlier=TOKENS, prompt=TOKENS.filter(bool), block_size=st.integers(1, 20))
def test_the_prefix_cache_finds_what_is_predicted(
    earlier: list[int], prompt: list[int], block_size: int
) -> None:
    manager = BlockManager(200, block_size)
    block_table = manager.match_prefix(earlier or [9])
    assert manager.allocate(block_table, len(earlier))
    manager.cache_full_blocks(block_table, earlier)
    manager.free(block_table)
    num_found = len(manager.match_prefix(prompt).block_ids) * block_size
    assert num_found == cached_tokens(earlier, prompt, block_size)
