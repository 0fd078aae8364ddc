"""The blocks of the KV cache at one moment of a run: whose they are, which are shared, and which are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request

BlockState = Literal["free", "cached", "owned", "shared"]


@dataclass(frozen=True)
class BlockMap:
    """`owners`: for each block, from block id 1 on, the indices of the requests whose block tables contain it.

    `cached`: for each block, whether only the prefix cache refers to it. `num_empty_tokens`: token positions in the
    blocks of running requests that hold no token yet. `num_free_blocks` counts free and cached blocks.
    """

    owners: list[tuple[int, ...]]
    cached: list[bool]
    num_empty_tokens: list[int]
    num_free_blocks: int

    @classmethod
    def of(cls, block_manager: BlockManager, requests: Sequence[Request]) -> BlockMap:
        """The blocks as they are now. `requests` are all requests of the run; a request that waits has no block."""
        num_blocks = block_manager.num_blocks
        owners: list[list[int]] = [[] for _ in range(num_blocks)]
        for index, request in enumerate(requests):
            for block_id in request.block_table.block_ids:
                owners[block_id - 1].append(index)
        ref_counts = block_manager.allocator.ref_counts
        cached = [
            ref_counts[block_id] > 0 and not owners[block_id - 1] for block_id in range(1, 1 + num_blocks)
        ]
        num_empty_tokens = [
            len(request.block_table.block_ids) * block_manager.tokens_per_block - request.num_computed_tokens
            for request in requests
            if request.block_table.block_ids
        ]
        return cls(
            [tuple(indices) for indices in owners], cached, num_empty_tokens, block_manager.num_free_blocks
        )

    def state(self, index: int) -> BlockState:
        """`index` counts blocks from 0."""
        if self.owners[index]:
            return "shared" if len(self.owners[index]) > 1 else "owned"
        return "cached" if self.cached[index] else "free"

    @property
    def num_shared_blocks(self) -> int:
        return sum(len(indices) > 1 for indices in self.owners)
