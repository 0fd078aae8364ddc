"""Reference counts and copy on write: of the allocator, of block tables that fork, and of forked requests' tokens."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.block_allocator import BlockAllocator, BlockError, RefCountAllocator
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.kv_cache import BlockManager, BlockTable
from engineroom.engine.runtime.request import Request, RequestError
from engineroom.engine.runtime.sampling import SamplingParams

PROMPT = [5 * i + 3 for i in range(40)]  # two full blocks of 16 tokens, and half a block


@given(
    st.lists(
        st.tuples(st.sampled_from(["allocate", "share", "free", "write"]), st.integers(0, 99)), max_size=60
    )
)
def test_counts_are_the_references(actions: list[tuple[str, int]]) -> None:
    """`references` is what the callers hold; after each action the allocator knows the same."""
    allocator: BlockAllocator = RefCountAllocator(6)
    references: list[int] = []
    for action, choice in actions:
        index = choice % len(references) if references else 0
        if action == "allocate" and allocator.num_free_blocks:
            references.append(allocator.allocate())
        elif action == "share" and references:
            allocator.share(references[index])
            references.append(references[index])
        elif action == "free" and references:
            allocator.free(references.pop(index))
        elif action == "write" and references and allocator.num_free_blocks:
            num_references = references.count(references[index])
            block_id = allocator.copy_on_write(references[index])
            assert (block_id == references[index]) == (num_references == 1)
            references[index] = block_id
        counts = Counter(references)
        assert list(allocator.ref_counts) == [counts[block_id] for block_id in range(7)]
        assert allocator.num_free_blocks == 6 - len(counts)


def test_misuse_is_refused() -> None:
    allocator = RefCountAllocator(1)
    block_id = allocator.allocate()
    with pytest.raises(BlockError, match="No block is free"):
        allocator.allocate()
    allocator.share(block_id)
    with pytest.raises(BlockError, match="No block is free"):
        allocator.copy_on_write(block_id)
    assert allocator.ref_counts == [0, 2]
    allocator.free(block_id)
    allocator.free(block_id)
    for use in (allocator.free, allocator.share, allocator.copy_on_write):
        with pytest.raises(BlockError, match="Block 1 is free"):
            use(block_id)


def test_a_forked_table_is_copied_before_it_is_written() -> None:
    manager = BlockManager(8, 16)
    first = BlockTable()
    assert manager.allocate(first, 40)
    second = manager.fork(first)
    shared_id = first.block_ids[2]
    assert manager.num_free_blocks == 5
    assert manager.allocate(first, 41, 40)
    assert first.block_ids[:2] == second.block_ids[:2]
    assert first.block_ids[2] != second.block_ids[2] == shared_id
    assert manager.pop_block_copies() == [(shared_id, first.block_ids[2])]
    assert manager.allocate(second, 41, 40)  # the only one that is left writes in place
    assert second.block_ids[2] == shared_id
    assert not manager.pop_block_copies()
    assert manager.num_copied_blocks == 1
    manager.free(first)
    manager.free(second)
    assert manager.num_free_blocks == 8


def test_a_full_last_block_is_shared_without_a_copy() -> None:
    manager = BlockManager(8, 16)
    first = BlockTable()
    assert manager.allocate(first, 32)
    second = manager.fork(first)
    assert manager.allocate(first, 33, 32) and manager.allocate(second, 33, 32)
    assert first.block_ids[:2] == second.block_ids[:2]
    assert not manager.pop_block_copies()


def test_a_copy_that_finds_no_free_block_changes_nothing() -> None:
    manager = BlockManager(3, 16)
    first = BlockTable()
    assert manager.allocate(first, 40)
    second = manager.fork(first)
    block_ids = list(second.block_ids)
    assert not manager.allocate(second, 41, 40)
    assert second.block_ids == block_ids and not manager.pop_block_copies()


def test_a_copy_evicts_what_nobody_uses() -> None:
    manager = BlockManager(4, 16)
    cached = BlockTable()
    assert manager.allocate(cached, 16)
    manager.cache_full_blocks(cached, [1] * 16)
    manager.free(cached)
    first = BlockTable()
    assert manager.allocate(first, 40)
    second = manager.fork(first)
    assert manager.allocate(second, 41, 40)
    assert manager.match_prefix([1] * 17).block_ids == []


def forked(engine: EngineDir, prompt: list[int], seeds: list[int]) -> tuple[Executor, list[Request]]:
    """A sampled request, and a fork of it after its first token for each of `seeds`; all have run to the end."""
    executor = Executor(engine, KvCacheConfig(max_tokens=1024), overlap=0)
    parent = Request(prompt, sampled(9))
    executor.scheduler.add(parent)
    while not parent.output_token_ids:
        executor.step()
    requests = [parent, *(executor.scheduler.fork(parent, sampled(seed)) for seed in seeds)]
    while executor.scheduler.has_requests:
        executor.step()
    return executor, requests


def sampled(seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=24, temperature=1.0, seed=seed)


@pytest.mark.parametrize("length", [40, 32, 47, 48])
def test_a_fork_gets_the_tokens_of_a_request_of_its_own(engine: EngineDir, length: int) -> None:
    """The parent and three forks write to copies of one block; each must read only its own tokens from it."""
    executor, requests = forked(engine, (PROMPT + PROMPT)[:length], [1, 2, 3])
    alone = Executor(engine, KvCacheConfig(max_tokens=1024, enable_block_reuse=False), overlap=0)
    for request in requests:
        prompt = request.token_ids[: request.num_prompt_tokens]
        assert alone.generate([prompt], request.params)[0] == request.output_token_ids
    assert len({tuple(request.output_token_ids[-20:]) for request in requests}) == 4
    # all but the last to write copy the block, if it is not full
    assert executor.block_manager.num_copied_blocks == (3 if length % 16 else 0)
    assert executor.block_manager.num_free_blocks == executor.block_manager.num_blocks


def test_a_fork_that_cannot_start_leaves_nothing_behind(engine: EngineDir) -> None:
    executor = Executor(engine, KvCacheConfig(max_tokens=64), overlap=0)
    parent = Request(list(PROMPT), SamplingParams(max_tokens=24))
    executor.scheduler.add(parent)
    with pytest.raises(RequestError, match="only a running request"):
        executor.scheduler.fork(parent, sampled(1))
    executor.step()
    num_free_blocks = executor.block_manager.num_free_blocks
    with pytest.raises(RequestError, match="too few blocks"):
        executor.scheduler.fork(parent, SamplingParams(max_tokens=23))
    assert executor.block_manager.num_free_blocks == num_free_blocks
    assert executor.scheduler.running == [parent]


def test_another_allocator_takes_the_place_of_ours(engine: EngineDir) -> None:
    """One that hands out the block with the highest id gives other block tables and the same tokens."""

    class LastFirst(RefCountAllocator):
        def allocate(self) -> int:
            self.free_block_ids.rotate(1)
            return super().allocate()

    params = SamplingParams(max_tokens=24)
    ours = Executor(engine, KvCacheConfig(max_tokens=1024))
    expected = ours.generate([PROMPT, PROMPT[:20]], params)
    executor = Executor(engine, KvCacheConfig(max_tokens=1024), make_block_allocator=LastFirst)
    assert isinstance(executor.block_manager.allocator, LastFirst)
    assert executor.generate([PROMPT, PROMPT[:20]], params) == expected
