"""The blocks of the KV cache: which sequence holds which, how equal prefixes are shared, and what is evicted.

A block holds the keys and values of `tokens_per_block` consecutive tokens of a sequence, in every layer. A full block
is known by a hash of its tokens and of all tokens before them, so a later request with the same prefix can share it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PADDING_BLOCK_ID = 0  # takes the writes of padding rows; the block manager never allocates it


@dataclass
class BlockTable:
    """The blocks of one sequence, in the order of its tokens.

    Token i of the sequence is in block `block_ids[i // tokens_per_block]`. `block_hashes` belong to the first blocks:
    those that are full and computed, so that other sequences may share them.
    """

    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)


class BlockManager:
    """Allocates the blocks 1 … `num_blocks`. Invariants:

    - The reference count of a block is the number of block tables that contain it.
    - Only a full block can be in more than one block table. No step writes to a full block, so sharing needs no copy.
    - A block without references is free. If its content has a hash it is also evictable: `match_prefix` still finds it
      until `allocate` hands it to another sequence. The block that was released first is evicted first.
    """

    def __init__(self, num_blocks: int, tokens_per_block: int, enable_block_reuse: bool = True) -> None:
        self.num_blocks, self.tokens_per_block = num_blocks, tokens_per_block
        self.enable_block_reuse = enable_block_reuse
        self.num_reused_tokens = 0
        self._ref_counts = [0] * (1 + num_blocks)  # by block id
        self._empty_block_ids = deque(range(1, 1 + num_blocks))
        # block id to block hash; the block that was released first comes first
        self._evictable: OrderedDict[int, bytes] = OrderedDict()
        self._hash_to_block_id: dict[bytes, int] = {}

    @property
    def num_free_blocks(self) -> int:
        """Blocks that `allocate` can hand out, evictable ones included."""
        return len(self._empty_block_ids) + len(self._evictable)

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
            self._ref_counts[block_id] += 1
            block_table.block_ids.append(block_id)
            block_table.block_hashes.append(block_hash)
        self.num_reused_tokens += len(block_table.block_ids) * self.tokens_per_block
        return block_table

    def allocate(self, block_table: BlockTable, num_tokens: int) -> bool:
        """Extend a block table until it holds `num_tokens` tokens.

        Returns False, and allocates nothing, if there are too few free blocks.
        """
        num_missing = self.blocks_needed(num_tokens) - len(block_table.block_ids)
        if num_missing > self.num_free_blocks:
            return False
        for _ in range(num_missing):
            block_table.block_ids.append(self._allocate_block())
        return True

    def cache_full_blocks(self, block_table: BlockTable, token_ids: Sequence[int]) -> None:
        """Let other sequences share the full blocks of `token_ids`, whose keys and values are computed."""
        if not self.enable_block_reuse:
            return
        for block_hash in self._new_block_hashes(block_table, token_ids):
            block_id = block_table.block_ids[len(block_table.block_hashes)]
            block_table.block_hashes.append(block_hash)
            # another sequence may have computed an equal block before
            self._hash_to_block_id.setdefault(block_hash, block_id)

    def free(self, block_table: BlockTable) -> None:
        """Release all blocks of a table, the last one first, so that the beginning of a prompt is evicted last."""
        for index in reversed(range(len(block_table.block_ids))):
            block_id = block_table.block_ids[index]
            self._ref_counts[block_id] -= 1
            if self._ref_counts[block_id]:
                continue
            block_hash = block_table.block_hashes[index] if index < len(block_table.block_hashes) else None
            if block_hash is not None and self._hash_to_block_id.get(block_hash) == block_id:
                self._evictable[block_id] = block_hash
            else:
                self._empty_block_ids.append(block_id)
        block_table.block_ids.clear()
        block_table.block_hashes.clear()

    def _allocate_block(self) -> int:
        if self._empty_block_ids:
            block_id = self._empty_block_ids.popleft()
        else:
            block_id, block_hash = self._evictable.popitem(last=False)
            del self._hash_to_block_id[block_hash]
        self._ref_counts[block_id] = 1
        return block_id

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
