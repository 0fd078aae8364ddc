"""Who holds which block of the KV cache: a free list, reference counts, and copy on write.

An allocator knows ids only. `BlockManager` puts block tables and prefixes on top of it, and the model runner copies
the keys and values. Any class with these methods can take the place of `RefCountAllocator`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from engineroom.kit.errors import UserError


class BlockError(UserError, RuntimeError):
    """A block was used against its reference count; the message names the block."""


class BlockAllocator(Protocol):
    """Allocates the block ids 1 … num_blocks. A block is free as long as its reference count is 0."""

    @property
    def ref_counts(self) -> Sequence[int]:
        """The number of references to each block, by block id; entry 0 belongs to no block."""
        ...

    @property
    def num_free_blocks(self) -> int: ...

    def allocate(self) -> int:
        """Take a free block, set its reference count to 1 and return its id. Called only if a block is free."""
        ...

    def share(self, block_id: int) -> None:
        """Add a reference to a block that is in use."""
        ...

    def free(self, block_id: int) -> None:
        """Drop a reference; without references the block is free again."""
        ...

    def copy_on_write(self, block_id: int) -> int:
        """A block that only the caller refers to: `block_id` itself, or a new block if others refer to it too.

        In the second case the caller's reference moves to the new block. Called only if a block is free.
        """
        ...


class RefCountAllocator:
    """The engine's own allocator: the block that was freed first is allocated first."""

    def __init__(self, num_blocks: int) -> None:
        self.free_block_ids = deque(range(1, 1 + num_blocks))
        self.ref_counts = [0] * (1 + num_blocks)

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_block_ids)

    def allocate(self) -> int:
        """As in BlockAllocator. Raises BlockError if no block is free."""
        if not self.free_block_ids:
            raise BlockError("No block is free. Ask for `num_free_blocks` before you allocate.")
        block_id = self.free_block_ids.popleft()
        self.ref_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """As in BlockAllocator. Raises BlockError for a free block."""
        self._check_in_use(block_id)
        self.ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        """As in BlockAllocator. Raises BlockError for a block that is free already."""
        self._check_in_use(block_id)
        self.ref_counts[block_id] -= 1
        if not self.ref_counts[block_id]:
            self.free_block_ids.append(block_id)

    def copy_on_write(self, block_id: int) -> int:
        """As in BlockAllocator. Raises BlockError for a free block, or if a copy is needed and no block is free."""
        self._check_in_use(block_id)
        if self.ref_counts[block_id] == 1:
            return block_id
        new_block_id = self.allocate()
        self.ref_counts[block_id] -= 1
        return new_block_id

    def _check_in_use(self, block_id: int) -> None:
        if not self.ref_counts[block_id]:
            raise BlockError(f"Block {block_id} is free: no block table refers to it.")
