"""KV cache blocks: allocation, sharing, reuse and eviction; at the end every block is free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineroom.engine.runtime.kv_cache import PADDING_BLOCK_ID, BlockManager, BlockTable

PROMPT = list(range(100, 110))  # two full blocks of 4 tokens, and half a block


def computed(manager: BlockManager, token_ids: list[int]) -> BlockTable:
    """A block table whose keys and values were computed for all of `token_ids`."""
    block_table = manager.match_prefix(token_ids)
    assert manager.allocate(block_table, len(token_ids))
    manager.cache_full_blocks(block_table, token_ids)
    return block_table


def test_a_prefix_is_shared_and_survives_release() -> None:
    manager = BlockManager(8, 4)
    first = computed(manager, PROMPT)
    second = manager.match_prefix([*PROMPT[:8], 7, 7, 7])
    assert second.block_ids == first.block_ids[:2] and manager.num_reused_tokens == 8
    manager.free(first)
    manager.free(second)
    assert manager.num_free_blocks == manager.num_blocks == 8
    assert len(manager.match_prefix(PROMPT).block_ids) == 2


def test_the_last_token_is_always_computed() -> None:
    manager = BlockManager(8, 4)
    manager.free(computed(manager, PROMPT[:8]))
    assert len(manager.match_prefix(PROMPT[:8]).block_ids) == 1


def test_equal_tokens_after_different_ones_are_not_shared() -> None:
    manager = BlockManager(8, 4)
    manager.free(computed(manager, PROMPT))
    assert manager.match_prefix([1, *PROMPT[1:]]).block_ids == []


def test_the_block_released_first_is_evicted_first() -> None:
    manager = BlockManager(4, 4)
    manager.free(computed(manager, [1] * 4 + [0]))
    manager.free(computed(manager, [2] * 4 + [0]))
    block_table = BlockTable()
    assert manager.allocate(block_table, 12) and not manager.allocate(block_table, 20)
    assert manager.match_prefix([1] * 4 + [0]).block_ids == []
    assert len(manager.match_prefix([2] * 4 + [0]).block_ids) == 1


def test_without_reuse_nothing_is_shared() -> None:
    manager = BlockManager(8, 4, enable_block_reuse=False)
    manager.free(computed(manager, PROMPT))
    assert manager.match_prefix(PROMPT).block_ids == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 2)), max_size=40), st.booleans()
)
def test_every_block_comes_back(actions: list[tuple[int, int, int]], reuse: bool) -> None:
    """Sequences over a small vocabulary come and go; two share a block only if all tokens up to its end are equal."""
    manager = BlockManager(11, 4, reuse)
    sequences: list[tuple[BlockTable, list[int]]] = []
    for action, length, token_id in actions:
        if action == 0 and sequences:
            block_table, _ = sequences.pop(length % len(sequences))
            manager.free(block_table)
            continue
        token_ids = [token_id] * length
        block_table = manager.match_prefix(token_ids)
        if not manager.allocate(block_table, length):
            manager.free(block_table)
            continue
        manager.cache_full_blocks(block_table, token_ids)
        sequences.append((block_table, token_ids))
        contents: dict[
            int, tuple[int, ...]
        ] = {}  # by block id: the block's index, and all tokens up to its end
        for block_table, token_ids in sequences:
            for index, block_id in enumerate(block_table.block_ids):
                content = (index, *token_ids[: (index + 1) * 4])
                assert block_id != PADDING_BLOCK_ID
                assert contents.setdefault(block_id, content) == content
        assert manager.num_free_blocks == manager.num_blocks - len(contents)
    for block_table, _ in sequences:
        manager.free(block_table)
    assert manager.num_free_blocks == manager.num_blocks
