"""Lesson 03: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from fractions import Fraction
from itertools import takewhile
from math import ceil, prod
from typing import Any

import numpy as np

from engineroom.engine.runtime.block_allocator import RefCountAllocator
from labs.kv_cache_and_batching.formulas import (
    Config,
    Tokens,
    batches,
    bytes_per_token,
    cached_tokens,
    common_prefix,
    idle_slots,
    max_concurrency,
)


def kv_by_loop(config: Config, itemsize: int) -> int:
    num_bytes = 0
    for _layer in range(config["num_hidden_layers"]):
        for _vector in ("key", "value"):
            num_bytes += config["num_key_value_heads"] * config["head_dim"] * itemsize
    return num_bytes


def kv_by_numpy(config: Config, itemsize: int) -> Any:
    names = ("num_hidden_layers", "num_key_value_heads", "head_dim")
    return np.prod([2, itemsize, *(config[name] for name in names)])


def kv_of_group(config: Config, itemsize: int) -> Fraction:
    group = Fraction(config["num_attention_heads"], config["num_key_value_heads"])
    heads = config["num_attention_heads"] / group
    return 2 * itemsize * config["num_hidden_layers"] * heads * config["head_dim"]


class StackBlocks:
    """Free blocks on a list, counts in an array: the block that was freed last is allocated first."""

    def __init__(self, num_blocks: int) -> None:
        self.free_block_ids = list(range(1, num_blocks + 1))
        self.ref_counts: Any = np.zeros(num_blocks + 1, dtype=int)

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_block_ids)

    def allocate(self) -> int:
        block_id = self.free_block_ids.pop()
        self.ref_counts[block_id] += 1
        return block_id

    def share(self, block_id: int) -> None:
        self.ref_counts[block_id] = self.ref_counts[block_id] + 1

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if not self.ref_counts[block_id]:
            self.free_block_ids.append(block_id)

    def copy_on_write(self, block_id: int) -> int:
        if self.ref_counts[block_id] > 1:
            self.ref_counts[block_id] -= 1
            block_id = self.allocate()
        return block_id


class CounterBlocks(StackBlocks):
    """Counts in a Counter, and a set of free blocks."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__(num_blocks)
        self.ref_counts = Counter()
        self.unused = {*range(1, num_blocks + 1)}

    @property
    def num_free_blocks(self) -> Any:
        return np.int64(len(self.unused))

    def allocate(self) -> int:
        block_id = self.unused.pop()
        self.ref_counts.update([block_id])
        return block_id

    def free(self, block_id: int) -> None:
        self.ref_counts.subtract([block_id])
        if self.ref_counts[block_id] == 0:
            self.unused.add(block_id)


class HeapBlocks(StackBlocks):
    """Always the free block with the lowest id; ids are NumPy's integers."""

    def allocate(self) -> Any:
        block_id = heapq.heappop(self.free_block_ids)
        self.ref_counts[block_id] = 1
        return np.int64(block_id)

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] == 0:
            heapq.heappush(self.free_block_ids, int(block_id))


class CopyFirst(RefCountAllocator):
    """Takes the new block before it gives up the old one."""

    def copy_on_write(self, block_id: int) -> int:
        if self.ref_counts[block_id] == 1:
            return block_id
        new_block_id = self.allocate()
        self.free(block_id)
        return new_block_id


class Blocks:
    """A right allocator from which the wrong ones differ in one method."""

    def __init__(self, num_blocks: int) -> None:
        self.free_block_ids = deque(range(1, num_blocks + 1))
        self.ref_counts = [0] * (num_blocks + 1)

    @property
    def num_free_blocks(self) -> Any:
        return len(self.free_block_ids)

    def allocate(self) -> Any:
        block_id = self.free_block_ids.popleft()
        self.ref_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        self.ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if not self.ref_counts[block_id]:
            self.free_block_ids.append(block_id)

    def copy_on_write(self, block_id: int) -> Any:
        if self.ref_counts[block_id] == 1:
            return block_id
        self.ref_counts[block_id] -= 1
        return self.allocate()


def without_empty_slots(lengths: list[int], slots: int) -> int:
    return sum(len(batch) * max(batch) - sum(batch) for batch in batches(lengths, slots))


def idle_share(lengths: list[int], slots: int) -> float:
    return idle_slots(lengths, slots) / sum(slots * max(batch) for batch in batches(lengths, slots))


def separately(num_blocks: int, block_size: int, prompt: int, answer: int) -> int:
    return num_blocks // (ceil(prompt / block_size) + ceil(answer / block_size))


def with_methods(**methods: Any) -> type[Blocks]:
    return type("WrongBlocks", (Blocks,), methods)


def keep_in_list(self: Blocks) -> int:
    block_id = self.free_block_ids[0]
    self.ref_counts[block_id] = 1
    return block_id


def do_not_count(self: Blocks) -> int:
    return self.free_block_ids.popleft()


def from_zero(self: Blocks, num_blocks: int) -> None:
    self.free_block_ids = deque(range(num_blocks))
    self.ref_counts = [0] * (num_blocks + 1)


def without_counts(self: Blocks, num_blocks: int) -> None:
    self.free_block_ids = deque(range(1, num_blocks + 1))


def free_at_once(self: Blocks, block_id: int) -> None:
    self.ref_counts[block_id] -= 1
    self.free_block_ids.append(block_id)


def free_all(self: Blocks, block_id: int) -> None:
    self.ref_counts[block_id] = 0
    self.free_block_ids.append(block_id)


def lose(self: Blocks, block_id: int) -> None:
    self.ref_counts[block_id] -= 1


def take_block(self: Blocks, block_id: int) -> None:
    self.ref_counts[block_id] += 1
    self.free_block_ids.popleft()


def always_copy(self: Blocks, block_id: int) -> Any:
    self.free(block_id)
    return self.allocate()


def never_copy(_self: Blocks, block_id: int) -> int:
    return block_id


def keep_reference(self: Blocks, block_id: int) -> Any:
    return block_id if self.ref_counts[block_id] == 1 else self.allocate()


def forget_return(self: Blocks, block_id: int) -> Any:
    if self.ref_counts[block_id] == 1:
        return block_id
    self.ref_counts[block_id] -= 1
    self.allocate()
    return None


def split_all(self: Blocks, block_id: int) -> Any:
    """Right for two references; a third one loses its count."""
    if self.ref_counts[block_id] == 1:
        return block_id
    self.ref_counts[block_id] = 1
    return self.allocate()


def share_once(self: Blocks, block_id: int) -> None:
    self.ref_counts[block_id] = 2


def concurrency_by_loop(num_blocks: int, block_size: int, prompt: int, answer: int) -> int:
    count, needed = 0, len(range(0, prompt + answer, block_size))
    while num_blocks >= needed:
        num_blocks -= needed
        count += 1
    return count


def idle_by_steps(lengths: list[int], slots: int) -> int:
    idle = 0
    while lengths:
        batch, lengths = lengths[:slots], lengths[slots:]
        for step in range(max(batch)):
            idle += slots - sum(length > step for length in batch)
    return idle


def idle_by_numpy(lengths: list[int], slots: int) -> Any:
    padded = np.pad(lengths, (0, -len(lengths) % slots)).reshape(-1, slots)
    return (padded.max(1, keepdims=True) - padded).sum()


def prefix_by_blocks(earlier: Tokens, prompt: Tokens, block_size: int) -> int:
    end = block_size
    while end < len(prompt) and end <= len(earlier) and earlier[:end] == prompt[:end]:
        end += block_size
    return end - block_size


def prefix_by_enumeration(earlier: Tokens, prompt: Tokens, block_size: int) -> int:
    lengths = range(block_size, len(prompt), block_size)
    return max(takewhile(lambda length: earlier[:length] == prompt[:length], lengths), default=0)


def prefix_by_numpy(earlier: Tokens, prompt: Tokens, block_size: int) -> Any:
    length = min(len(earlier), len(prompt))
    different = np.flatnonzero(np.array(earlier[:length]) != np.array(prompt[:length]))
    equal = different[0] if len(different) else length
    return np.minimum(equal, len(prompt) - 1) // block_size * block_size


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "03.kv": [(bytes_per_token,), (kv_by_loop,), (kv_by_numpy,), (kv_of_group,)],
    "03.allocator": [
        (Blocks,),
        (StackBlocks,),
        (CounterBlocks,),
        (HeapBlocks,),
        (CopyFirst,),
        (RefCountAllocator,),
    ],
    "03.concurrency": [
        (max_concurrency,),
        (concurrency_by_loop,),
        (lambda n, size, prompt, answer: np.floor(n / np.ceil((prompt + answer) / size)),),
        (lambda n, size, prompt, answer: divmod(n, (prompt + answer - 1) // size + 1)[0],),
    ],
    "03.idle": [
        (idle_slots,),
        (idle_by_steps,),
        (idle_by_numpy,),
        (lambda lengths, slots: slots * sum(max(batch) for batch in batches(lengths, slots)) - sum(lengths),),
    ],
    "03.prefix": [
        (cached_tokens,),
        (prefix_by_blocks,),
        (prefix_by_numpy,),
        (prefix_by_enumeration,),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("03.kv", (120,), "Pass it uncalled"),
    ("03.kv", (lambda config, size: None,), "not a number"),
    ("03.kv", (lambda config, size: bytes_per_token(config, size) // 2,), "half of it"),
    ("03.kv", (lambda config, size: 2 * prod(list(config.values())[1:3]) * config["head_dim"] * size,), "query heads"),
    ("03.kv", (lambda config, size: 2 * config["num_key_value_heads"] * config["head_dim"] * size,), "one layer"),
    ("03.kv", (lambda c, size: bytes_per_token({**c, "head_dim": c["hidden_size"]}, size),), "`head_dim` wide"),
    ("03.kv", (lambda config, size: 2 * config["num_hidden_layers"] * config["hidden_size"] * size,), "grouped-query"),
    ("03.kv", (lambda config, size: bytes_per_token({**config, "head_dim": 1}, size),), "left out `head_dim`"),
    ("03.kv", (lambda config, size: bytes_per_token({**config, "num_key_value_heads": 1}, size),), "one head"),
    ("03.kv", (lambda config, size: 8 * bytes_per_token(config, size),), "bits"),
    ("03.kv", (lambda config, size: bytes_per_token(config, 1),), "counts values"),
    ("03.kv", (lambda config, size: bytes_per_token(config, 2),), "right for bfloat16 only"),
    ("03.kv", (lambda config, size: bytes_per_token(config, 4),), "right for float32 only"),
    ("03.kv", (lambda config, size: 120,), "same for every input"),
    ("03.allocator", (Blocks(4),), "Pass it uncalled"),
    ("03.allocator", (with_methods(allocate=None),), "no method `allocate`"),
    ("03.allocator", (with_methods(allocate=lambda self: print(end="")),), "`allocate` returns None"),
    ("03.allocator", (with_methods(allocate=keep_in_list),), "leaves `free_block_ids`"),
    ("03.allocator", (with_methods(allocate=do_not_count),), "It should be 1"),
    ("03.allocator", (with_methods(__init__=from_zero),), "the ids begin at 1"),
    ("03.allocator", (with_methods(free=lose),), "it is lost for ever"),
    ("03.allocator", (with_methods(free=free_at_once),), "your `free` gives the block away"),
    ("03.allocator", (with_methods(free=free_all),), "your `free` gives the block away"),
    ("03.allocator", (with_methods(free=lambda self, block_id: None),), "the only reference is gone"),
    ("03.allocator", (with_methods(share=lambda self, block_id: None),), "two block tables refer"),
    ("03.allocator", (with_methods(share=take_block),), "Sharing takes no block"),
    ("03.allocator", (with_methods(copy_on_write=always_copy),), "Nobody else reads it"),
    ("03.allocator", (with_methods(copy_on_write=lambda self, block_id: self.allocate()),), "Nobody else reads it"),
    ("03.allocator", (with_methods(copy_on_write=never_copy),), "would read what this one writes"),
    ("03.allocator", (with_methods(copy_on_write=keep_reference),), "one request is left on the old block"),
    ("03.allocator", (with_methods(copy_on_write=forget_return),), "`copy_on_write` returns None"),
    ("03.allocator", (with_methods(copy_on_write=split_all),), "In a long run"),
    ("03.allocator", (with_methods(share=share_once),), "In a long run"),
    ("03.allocator", (with_methods(share=lambda self: None),), "The engine calls `share` with 1 argument"),
    ("03.allocator", (with_methods(__init__=without_counts),), "The engine reads `ref_counts`"),
    ("03.allocator", (with_methods(num_free_blocks=lambda self: 5),), "not a number"),
    ("03.allocator", (lambda num_blocks: None,), "no method `allocate`"),
    ("03.concurrency", (16,), "Pass it uncalled"),
    ("03.concurrency", (lambda n, size, prompt, answer: "16",), "not a number"),
    ("03.concurrency", (lambda n, size, prompt, answer: n * size // (prompt + answer),), "You counted tokens"),
    ("03.concurrency", (lambda n, size, prompt, answer: n * size / (prompt + answer),), "You counted tokens"),
    ("03.concurrency", (lambda n, size, prompt, answer: n / ceil((prompt + answer) / size),), "Round down"),
    ("03.concurrency", (lambda n, size, prompt, answer: ceil(n / ceil((prompt + answer) / size)),), "You rounded up"),
    ("03.concurrency", (lambda n, size, prompt, answer: n // ceil(prompt / size),), "the prompt alone"),
    ("03.concurrency", (lambda n, size, prompt, answer: n // ceil(answer / size),), "the answer alone"),
    ("03.concurrency", (separately,), "separately"),
    ("03.concurrency", (lambda n, size, prompt, answer: n // ((prompt + answer) // size),), "blocks of a request down"),
    ("03.concurrency", (lambda *load: max(1, max_concurrency(*load)),), "the answer is 0"),
    ("03.concurrency", (lambda n, size, prompt, answer: ceil((prompt + answer) / size),), "one request needs"),
    ("03.concurrency", (lambda n, size, prompt, answer: n,), "how many blocks there are"),
    ("03.concurrency", (lambda n, size, prompt, answer: n - 1,), "should be"),
    ("03.idle", (34,), "Pass it uncalled"),
    ("03.idle", (lambda lengths, slots: lengths,), "not a number"),
    ("03.idle", (without_empty_slots,), "empty slots are idle"),
    ("03.idle", (lambda lengths, slots: idle_slots(sorted(lengths), slots),), "You sorted"),
    ("03.idle", (lambda lengths, slots: idle_slots(sorted(lengths)[::-1], slots),), "You sorted"),
    ("03.idle", (lambda lengths, slots: sum(max(lengths) - length for length in lengths),), "longest of all"),
    ("03.idle", (lambda lengths, slots: slots * max(lengths) - sum(lengths),), "one batch for all"),
    ("03.idle", (lambda lengths, slots: sum(max(b) for b in batches(lengths, slots)),), "steps of the run"),
    ("03.idle", (lambda lengths, slots: sum(slots * max(b) for b in batches(lengths, slots)),), "all slots of"),
    ("03.idle", (lambda lengths, slots: sum(max(b) - min(b) for b in batches(lengths, slots)),), "idle longest"),
    ("03.idle", (idle_share,), "a share"),
    ("03.idle", (lambda lengths, slots: sum(lengths),), "busy slots"),
    ("03.prefix", (256,), "Pass it uncalled"),
    ("03.prefix", (lambda a, b, size: a,), "not a number"),
    ("03.prefix", (lambda a, b, size: common_prefix(a, b) // size * size,), "always computed"),
    ("03.prefix", (lambda a, b, size: common_prefix(a, b),), "whole blocks"),
    ("03.prefix", (lambda a, b, size: min(common_prefix(a, b), len(b) - 1),), "whole blocks"),
    ("03.prefix", (lambda a, b, size: cached_tokens(a, b, size) // size,), "Those are blocks"),
    ("03.prefix", (lambda a, b, size: ceil(common_prefix(a, b) / size) * size,), "rounded up"),
    ("03.prefix", (lambda a, b, size: sum(map(int.__eq__, a, b)) // size * size,), "after a difference"),
    ("03.prefix", (lambda a, b, size: min(sum(map(int.__eq__, a, b)), len(b) - 1) // size * size,), "a difference"),
    ("03.prefix", (lambda a, b, size: len(b) - cached_tokens(a, b, size),), "must be computed"),
    ("03.prefix", (lambda a, b, size: min(len(a), len(b) - 1) // size * size,), "compare lengths"),
    ("03.prefix", (lambda a, b, size: cached_tokens(a, b, 16),), "Use `block_size`"),
    ("03.prefix", (lambda a, b, size: size,), "should be"),
]  # fmt: skip
