"""The blocks of the KV cache: which sequence holds which, how equal prefixes are shared, and what is evicted.

A block holds the keys and values of `tokens_per_block` consecutive tokens of a sequence, in every layer. A full block
is known by a hash of its tokens and of all tokens before them, so a later request with the same prefix can share it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engineroom.engine.runtime.block_allocator import BlockAllocator, RefCountAllocator

PADDING_BLOCK_ID = 0  # takes the writes of padding rows; the block manager never allocates it


@dataclass(frozen=True)
class KvCacheConfig:
    """The size of the KV cache; the names are those of TensorRT-LLM's KvCacheConfig.

    `max_tokens`, if given, wins over `free_gpu_memory_fraction`, a share of the memory that is free once the weights
    are loaded. `enable_block_reuse`: whether requests share the blocks of equal prefixes.
    """

    max_tokens: int | None = None
    free_gpu_memory_fraction: float = 0.9
    enable_block_reuse: bool = True


@dataclass
class BlockTable:
    """The blocks of one sequence, in the order of its tokens.

    Token i of the sequence is in block `block_ids[i // tokens_per_block]`. `block_hashes` belong to the first blocks:
    those that are full and computed, so that other sequences may share them. `num_reused_blocks` were found in the
    cache; for `num_evicted_blocks`, the cached content of earlier sequences was evicted.
    """

    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    num_reused_blocks: int = 0
    num_evicted_blocks: int = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many blocks were reused, allocated, and allocated without evicting anything."""
        num_allocated = len(self.block_ids) - self.num_reused_blocks
        return self.num_reused_blocks, num_allocated, num_allocated - self.num_evicted_blocks


class BlockManager:
    """Gives sequences their blocks, 1 … `num_blocks`. Invariants:

    - The reference count of a block is the number of block tables that contain it, plus one if its content has a hash,
      by which `match_prefix` finds it.
    - A full block can be in several block tables, and no step writes to it. A block that is not full is in several
      tables only after `fork`; `allocate` then gives a sequence a copy of its own before a step writes to it.
    - A block to which only its hash refers is evictable: it counts as free. The block that was released first is
      evicted first.
    """

    def __init__(
        self,
        num_blocks: int,
        tokens_per_block: int,
        enable_block_reuse: bool = True,
        make_allocator: Callable[[int], BlockAllocator] = RefCountAllocator,
    ) -> None:
        """`make_allocator` returns an allocator of that many blocks."""
        self.num_blocks, self.tokens_per_block = num_blocks, tokens_per_block
        self.enable_block_reuse = enable_block_reuse
        self.num_queried_tokens = 0
        self.num_reused_tokens = 0
        self.num_copied_blocks = 0
        self.allocator = make_allocator(num_blocks)
        # block id to block hash; the block that was released first comes first
        self._evictable: OrderedDict[int, bytes] = OrderedDict()
        self._hash_to_block_id: dict[bytes, int] = {}
        self._block_copies: list[tuple[int, int]] = []

    @property
    def num_free_blocks(self) -> int:
        """Blocks that `allocate` can hand out, evictable ones included."""
        return self.allocator.num_free_blocks + len(self._evictable)

    def blocks_needed(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens of one sequence."""
        return -(-num_tokens // self.tokens_per_block)

    def match_prefix(self, token_ids: Sequence[int]) -> BlockTable:
        """A block table with the longest prefix of `token_ids` that the cache holds.

        The last token never matches: at least one token must be computed, since its logits give the next one.
        """
        block_table = BlockTable()
        if not self.enable_block_reuse:
            return block_table
        for block_hash in self._new_block_hashes(block_table, token_ids[:-1]):
            block_id = self._hash_to_block_id.get(block_hash)
            if block_id is None:
                break
            self._evictable.pop(block_id, None)
            self.allocator.share(block_id)
            block_table.block_ids.append(block_id)
            block_table.block_hashes.append(block_hash)
        self.num_queried_tokens += len(token_ids)
        block_table.num_reused_blocks = len(block_table.block_ids)
        self.num_reused_tokens += block_table.num_reused_blocks * self.tokens_per_block
        return block_table

    def forget_match(self, block_table: BlockTable, token_ids: Sequence[int]) -> None:
        """Undo `match_prefix` and its statistics, for a request that cannot start yet."""
        if self.enable_block_reuse:
            self.num_queried_tokens -= len(token_ids)
            self.num_reused_tokens -= len(block_table.block_ids) * self.tokens_per_block
        self.free(block_table)

    def allocate(
        self, block_table: BlockTable, num_tokens: int, num_computed_tokens: int | None = None
    ) -> bool:
        """Extend a block table until it holds `num_tokens` tokens.

        The next step writes the tokens from `num_computed_tokens` on; None stands for new blocks only. If other tables
        share the block of the first of these tokens, this table gets a copy, see `pop_block_copies`. Returns False,
        and allocates nothing, if there are too few free blocks.
        """
        num_missing = self.blocks_needed(num_tokens) - len(block_table.block_ids)
        shared_index = self._shared_index(block_table, num_computed_tokens)
        if num_missing + (shared_index is not None) > self.num_free_blocks:
            return False
        if shared_index is not None:
            self._copy_block(block_table, shared_index)
        for _ in range(num_missing):
            block_table.num_evicted_blocks += not self.allocator.num_free_blocks
            self._evict_if_full()
            block_table.block_ids.append(self.allocator.allocate())
        return True

    def fork(self, block_table: BlockTable) -> BlockTable:
        """A second table with the same blocks, the last one included, which may not be full."""
        for block_id in block_table.block_ids:
            self.allocator.share(block_id)
        return BlockTable(list(block_table.block_ids), list(block_table.block_hashes))

    def pop_block_copies(self) -> list[tuple[int, int]]:
        """(source, destination) block ids to copy, in this order, before the next step writes to any block."""
        copies, self._block_copies = self._block_copies, []
        return copies

    def cache_full_blocks(self, block_table: BlockTable, token_ids: Sequence[int]) -> None:
        """Let other sequences share the full blocks of `token_ids`, whose keys and values are computed."""
        if not self.enable_block_reuse:
            return
        for block_hash in self._new_block_hashes(block_table, token_ids):
            block_id = block_table.block_ids[len(block_table.block_hashes)]
            block_table.block_hashes.append(block_hash)
            if block_hash not in self._hash_to_block_id:  # else another sequence has computed an equal block
                self._hash_to_block_id[block_hash] = block_id
                self.allocator.share(block_id)

    def free(self, block_table: BlockTable) -> None:
        """Release all blocks of a table, the last one first, so that the beginning of a prompt is evicted last."""
        for index in reversed(range(len(block_table.block_ids))):
            block_id = block_table.block_ids[index]
            self.allocator.free(block_id)
            block_hash = block_table.block_hashes[index] if index < len(block_table.block_hashes) else None
            is_cached = block_hash is not None and self._hash_to_block_id.get(block_hash) == block_id
            if block_hash is not None and is_cached and self.allocator.ref_counts[block_id] == 1:
                self._evictable[block_id] = block_hash
        block_table.block_ids.clear()
        block_table.block_hashes.clear()

    def is_shared(self, block_table: BlockTable, num_computed_tokens: int) -> bool:
        """Whether other tables share the block that gets the token after `num_computed_tokens` tokens."""
        return self._shared_index(block_table, num_computed_tokens) is not None

    def _shared_index(self, block_table: BlockTable, num_computed_tokens: int | None) -> int | None:
        """The index of the block that the next step writes to first, if other tables share it."""
        if num_computed_tokens is None:
            return None
        index = num_computed_tokens // self.tokens_per_block
        if index >= len(block_table.block_ids):
            return None
        return index if self.allocator.ref_counts[block_table.block_ids[index]] > 1 else None

    def _copy_block(self, block_table: BlockTable, index: int) -> None:
        self._evict_if_full()
        block_id = block_table.block_ids[index]
        new_block_id = self.allocator.copy_on_write(block_id)
        block_table.block_ids[index] = new_block_id
        self._block_copies.append((block_id, new_block_id))
        self.num_copied_blocks += 1

    def _evict_if_full(self) -> None:
        """Make sure that the allocator has a free block; there is an evictable one if it has none."""
        if not self.allocator.num_free_blocks:
            block_id, block_hash = self._evictable.popitem(last=False)
            del self._hash_to_block_id[block_hash]
            self.allocator.free(block_id)

    def _new_block_hashes(self, block_table: BlockTable, token_ids: Sequence[int]) -> Iterator[bytes]:
        """Hashes of the full blocks of `token_ids`, without those that `block_table` already has."""
        size = self.tokens_per_block
        prefix_hash = block_table.block_hashes[-1] if block_table.block_hashes else b""
        for begin in range(len(block_table.block_hashes) * size, len(token_ids) - size + 1, size):
            prefix_hash = hash_block(token_ids[begin : begin + size], prefix_hash)
            yield prefix_hash


def hash_block(token_ids: Sequence[int], prefix_hash: bytes) -> bytes:
    """128-bit hash of one block's tokens and, through `prefix_hash`, of all blocks before it."""
    return hashlib.blake2b(prefix_hash + array("q", token_ids).tobytes(), digest_size=16).digest()
