"""Blocks: who has which, what is shared, what is kept for later; each ends where it began."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineroom.engine.runtime.kv_cache import PADDING, BlockManager, Pages

PROMPT = list(range(100, 110))  # with blocks of 4: two full ones and a half


def filled(manager: BlockManager, tokens: list[int]) -> Pages:
    pages = manager.start(tokens)
    assert manager.grow(pages, len(tokens))
    manager.commit(pages, tokens)
    return pages


def test_a_prefix_is_shared_and_survives_release() -> None:
    manager = BlockManager(9, 4)
    first = filled(manager, PROMPT)
    second = manager.start([*PROMPT[:8], 7, 7, 7])
    assert second.blocks == first.blocks[:2] and manager.reused_tokens == 8
    manager.release(first)
    manager.release(second)
    assert manager.available == manager.total == 8
    assert len(manager.start(PROMPT).blocks) == 2


def test_the_last_token_is_always_computed() -> None:
    manager = BlockManager(9, 4)
    manager.release(filled(manager, PROMPT[:8]))
    assert len(manager.start(PROMPT[:8]).blocks) == 1


def test_equal_tokens_after_different_ones_are_not_shared() -> None:
    manager = BlockManager(9, 4)
    manager.release(filled(manager, PROMPT))
    assert manager.start([1, *PROMPT[1:]]).blocks == []


def test_old_content_gives_way_the_oldest_first() -> None:
    manager = BlockManager(5, 4)
    manager.release(filled(manager, [1] * 4 + [0]))
    manager.release(filled(manager, [2] * 4 + [0]))
    held = Pages()
    assert manager.grow(held, 12) and not manager.grow(held, 20)
    assert manager.start([1] * 4 + [0]).blocks == []
    assert len(manager.start([2] * 4 + [0]).blocks) == 1


def test_without_reuse_nothing_is_shared() -> None:
    manager = BlockManager(9, 4, enable_block_reuse=False)
    manager.release(filled(manager, PROMPT))
    assert manager.start(PROMPT).blocks == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.integers(0, 2)), max_size=40), st.booleans()
)
def test_every_block_comes_back(moves: list[tuple[int, int, int]], reuse: bool) -> None:
    """Sequences of few different tokens come, grow and go: no block is in two hands unless its tokens are the same."""
    manager, living = BlockManager(12, 4, reuse), []
    for what, length, token in moves:
        if what == 0 and living:
            manager.release(living.pop(length % len(living))[0])
            continue
        tokens = [token] * length
        pages = manager.start(tokens)
        if not manager.grow(pages, length):
            manager.release(pages)
            continue
        manager.commit(pages, tokens)
        living.append((pages, tokens))
        owner: dict[int, tuple] = {}
        for held, said in living:
            for number, block in enumerate(held.blocks):
                content = (number, *said[: (number + 1) * 4])
                assert block != PADDING and owner.setdefault(block, content) == content
        assert manager.available == manager.total - len(owner)
    for pages, _ in living:
        manager.release(pages)
    assert manager.available == manager.total
