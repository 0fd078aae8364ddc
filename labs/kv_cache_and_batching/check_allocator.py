"""Judge a learner's block allocator: first the known mistakes, one by one, then a long run beside the engine's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from engineroom.engine.runtime.block_allocator import BlockAllocator, RefCountAllocator
from labs.kit.check import Mistake, require, require_number
from labs.kit.values import plain

METHODS = ("allocate", "share", "free", "copy_on_write")
NUM_BLOCKS, NUM_ACTIONS = 5, 400


class LearnerAllocator:
    """The learner's object, returning plain Python integers; a Mistake names what is missing or returns no id."""

    def __init__(self, blocks: Any) -> None:
        self.blocks = blocks
        for name in METHODS:
            require(callable(getattr(blocks, name, None)), f"Your class has no method `{name}`.")
        for name in ("num_free_blocks", "ref_counts"):
            require(
                hasattr(blocks, name),
                f"The engine reads `{name}`, and your object has none: leave it in the class.",
            )

    @property
    def num_free_blocks(self) -> float:
        return require_number(self.blocks.num_free_blocks, subject="`num_free_blocks`")

    def ref_count(self, block_id: int) -> float:
        try:
            count = self.blocks.ref_counts[block_id]
        except (LookupError, TypeError):
            raise Mistake(
                f"`ref_counts[{block_id}]` does not exist. There is a count for every block id from 1 on."
            ) from None
        return require_number(count, subject=f"`ref_counts[{block_id}]`")

    def allocate(self) -> int:
        return self._block_id("allocate", self.call("allocate"))

    def copy_on_write(self, block_id: int) -> int:
        return self._block_id("copy_on_write", self.call("copy_on_write", block_id))

    def share(self, block_id: int) -> None:
        self.call("share", block_id)

    def free(self, block_id: int) -> None:
        self.call("free", block_id)

    def call(self, method: str, *arguments: int) -> object:
        """Raises what the method raises, and Mistake if it takes other arguments."""
        try:
            return getattr(self.blocks, method)(*arguments)
        except TypeError as error:
            if error.__traceback__ and error.__traceback__.tb_next:  # raised inside the method
                raise
            raise Mistake(
                f"The engine calls `{method}` with {len(arguments)} argument(s) beside `self`: {error}"
            ) from None

    def _block_id(self, method: str, output: object) -> int:
        block_id = plain(output)
        require(block_id is not None, f"`{method}` returns None. It must return the id of a block.")
        require(
            isinstance(block_id, int) and 0 <= block_id <= NUM_BLOCKS,
            f"`{method}` returned {block_id!r}; the block ids are 1 to {NUM_BLOCKS}.",
        )
        require(block_id != 0, "The engine keeps block 0 for padding: the ids begin at 1.")
        return block_id


def require_allocator(make_allocator: Callable[[int], Any]) -> None:
    """Raise Mistake unless the class keeps the contract of BlockAllocator."""
    _check_allocate(LearnerAllocator(make_allocator(NUM_BLOCKS)))
    _check_share(LearnerAllocator(make_allocator(NUM_BLOCKS)))
    _check_copy_on_write(LearnerAllocator(make_allocator(NUM_BLOCKS)))
    _compare(LearnerAllocator(make_allocator(NUM_BLOCKS)))


def _check_allocate(allocator: LearnerAllocator) -> None:
    block_id = allocator.allocate()
    require(
        allocator.num_free_blocks == NUM_BLOCKS - 1,
        f"After one `allocate`, {allocator.num_free_blocks} of {NUM_BLOCKS} blocks are free. A block that is handed "
        f"out leaves `free_block_ids`.",
    )
    require(
        allocator.ref_count(block_id) == 1,
        f"`allocate` handed out a block with the count {allocator.ref_count(block_id)}. It should be 1: one block "
        f"table refers to the block.",
    )
    block_ids = {block_id, *(allocator.allocate() for _ in range(NUM_BLOCKS - 1))}
    require(
        len(block_ids) == NUM_BLOCKS,
        "`allocate` handed out one block twice. Two requests would write over each other's keys and values.",
    )
    allocator.free(block_id)
    require(
        allocator.ref_count(block_id) == 0,
        f"After `free`, the only reference is gone, but the count of the block is {allocator.ref_count(block_id)}, not "
        f"0.",
    )
    require(
        allocator.num_free_blocks == 1,
        "`free` dropped the last reference, and the block did not return to `free_block_ids`: it is lost for ever.",
    )
    require(
        allocator.allocate() == block_id,
        "One block is free, and `allocate` handed out another one, which is in use.",
    )


def _check_share(allocator: LearnerAllocator) -> None:
    block_id = allocator.allocate()
    allocator.share(block_id)
    require(
        allocator.ref_count(block_id) == 2,
        f"After `share`, two block tables refer to the block, and its count is {allocator.ref_count(block_id)}.",
    )
    require(
        allocator.num_free_blocks == NUM_BLOCKS - 1,
        "`share` changed the number of free blocks. Sharing takes no block; that is its point.",
    )
    allocator.free(block_id)
    require(
        allocator.num_free_blocks == NUM_BLOCKS - 1,
        "Two requests share a block, one of them ends, and your `free` gives the block away, although the other "
        "request still reads it. A block is free when its count is 0.",
    )
    require(
        allocator.ref_count(block_id) == 1,
        f"Two requests share a block and one of them ends: the count is {allocator.ref_count(block_id)}, not 1.",
    )
    allocator.free(block_id)
    require(
        allocator.num_free_blocks == NUM_BLOCKS,
        "A shared block was freed by both of its requests and is still not free.",
    )


def _check_copy_on_write(allocator: LearnerAllocator) -> None:
    block_id = allocator.allocate()
    require(
        allocator.copy_on_write(block_id) == block_id and allocator.num_free_blocks == NUM_BLOCKS - 1,
        "Only one request refers to the block, and your `copy_on_write` takes a new one. Nobody else reads it: return "
        "`block_id`, and copy nothing.",
    )
    allocator.share(block_id)
    new_block_id = allocator.copy_on_write(block_id)
    require(
        new_block_id != block_id,
        "Two requests share the block, and `copy_on_write` returned the same one. The other request would read what "
        "this one writes.",
    )
    require(
        allocator.ref_count(block_id) == 1,
        f"The writer moved to a copy, so one request is left on the old block; its count is "
        f"{allocator.ref_count(block_id)}.",
        "The caller gives up its reference to `block_id`: subtract 1.",
    )
    require(
        allocator.ref_count(new_block_id) == 1,
        f"The copy belongs to its writer alone: its count is 1, and yours is {allocator.ref_count(new_block_id)}.",
    )
    require(
        allocator.num_free_blocks == NUM_BLOCKS - 2,
        f"A copy takes one free block. {NUM_BLOCKS - 2} should be free, and {allocator.num_free_blocks} are.",
    )


def _compare(allocator: LearnerAllocator) -> None:
    """Random actions; the ids may differ from the engine's own allocator, the counts may not."""
    reference: BlockAllocator = RefCountAllocator(NUM_BLOCKS)
    references: list[tuple[int, int]] = []  # what the callers hold: (id here, id of the reference)
    draw = random.Random(3)
    for num_actions in range(1, NUM_ACTIONS + 1):
        action = draw.choice(METHODS)
        if action == "allocate" and reference.num_free_blocks:
            references.append((allocator.allocate(), reference.allocate()))
        elif action != "allocate" and references and reference.num_free_blocks:
            index = draw.randrange(len(references))
            _act(action, allocator, reference, references, index)
        elif references:
            _act("free", allocator, reference, references, draw.randrange(len(references)))
        _require_equal(
            f"after {num_actions} actions, the last one `{action}`", allocator, reference, references
        )


def _act(
    action: str,
    allocator: LearnerAllocator,
    reference: BlockAllocator,
    references: list[tuple[int, int]],
    index: int,
) -> None:
    block_id, reference_id = references[index]
    if action == "copy_on_write":
        references[index] = (allocator.copy_on_write(block_id), reference.copy_on_write(reference_id))
        return
    getattr(allocator, action)(block_id)
    getattr(reference, action)(reference_id)
    if action == "share":
        references.append((block_id, reference_id))
    else:
        references.pop(index)


def _require_equal(
    moment: str,
    allocator: LearnerAllocator,
    reference: BlockAllocator,
    references: list[tuple[int, int]],
) -> None:
    require(
        allocator.num_free_blocks == reference.num_free_blocks,
        f"In a long run, {moment}, {reference.num_free_blocks} blocks are free, and you count "
        f"{allocator.num_free_blocks}.",
    )
    require(
        len(dict(references)) == len({reference_id: block_id for block_id, reference_id in references}),
        f"In a long run, {moment}, one of your blocks belongs to requests that share nothing.",
    )
    for block_id, reference_id in references:
        require(
            allocator.ref_count(block_id) == reference.ref_counts[reference_id],
            f"In a long run, {moment}, block {block_id} has {reference.ref_counts[reference_id]} references, and you "
            f"count {allocator.ref_count(block_id)}.",
        )
