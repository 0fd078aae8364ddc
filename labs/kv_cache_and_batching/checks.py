"""The exercises of lesson 03."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from labs.kit.check import exercise, require_formula, require_function
from labs.kv_cache_and_batching import formulas, mistakes
from labs.kv_cache_and_batching.check_allocator import require_allocator
from labs.kv_cache_and_batching.formulas import Config


def config(layers: int, heads: int, kv_heads: int, head_dim: int, hidden_size: int) -> Config:
    """The sizes as config.json names them."""
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }


CONFIGS = {
    "3 layers of 2 KV heads, 5 wide, and 2 bytes a value": (config(3, 8, 2, 5, 24), 2),
    "7 layers of 3 KV heads, 11 wide, and 4 bytes a value": (config(7, 12, 3, 11, 97), 4),
    "5 layers of 4 KV heads, 13 wide, and 1 byte a value": (config(5, 20, 4, 13, 117), 1),
}


@exercise("03.kv", version=1, title="KV cache for one token", minutes=5)
def kv(bytes_per_token: Callable[[Config, int], float]) -> None:
    require_function(bytes_per_token, "bytes_per_token")
    require_formula(
        bytes_per_token,
        formulas.bytes_per_token,
        CONFIGS,
        "",
        "2 (key and value) × layers × KV heads × head size × bytes of a value",
        mistakes=mistakes.KV,
    )


@exercise("03.allocator", version=1, title="Write the block allocator", minutes=12)
def allocator(make_allocator: Callable[[int], Any]) -> None:
    require_function(make_allocator, "Blocks")
    require_allocator(make_allocator)


LOADS = {
    "32 blocks of 128 tokens, a prompt of 150 and an answer of 90 tokens": (32, 128, 150, 90),
    "35 blocks of 128 tokens, a prompt of 300 and an answer of 90 tokens": (35, 128, 300, 90),
    "35 blocks of 16 tokens, a prompt of 20 and an answer of 43 tokens": (35, 16, 20, 43),
    "96 blocks of 32 tokens, a prompt of 40 and an answer of 20 tokens": (96, 32, 40, 20),
    "5 blocks of 128 tokens, a prompt of 700 and an answer of 60 tokens": (5, 128, 700, 60),
}


@exercise("03.concurrency", version=1, title="How many requests fit at once", minutes=6)
def concurrency(max_concurrency: Callable[[int, int, int, int], float]) -> None:
    require_function(max_concurrency, "max_concurrency")
    require_formula(
        max_concurrency,
        formulas.max_concurrency,
        LOADS,
        "",
        "`num_blocks // math.ceil((prompt + answer) / block_size)`",
        mistakes=mistakes.CONCURRENCY,
    )


ANSWERS = {
    "answers of 20, 9, 14, 30, 6, 12, 25 and 8 tokens on 4 slots": ([20, 9, 14, 30, 6, 12, 25, 8], 4),
    "answers of 5, 40, 7, 7, 33, 2 and 11 tokens on 3 slots": ([5, 40, 7, 7, 33, 2, 11], 3),
    "answers of 17, 3, 29 and 8 tokens on 2 slots": ([17, 3, 29, 8], 2),
}


@exercise("03.idle", version=1, title="Idle slots of static batching", minutes=6)
def idle(idle_slots: Callable[[Sequence[int], int], float]) -> None:
    require_function(idle_slots, "idle_slots")
    require_formula(
        idle_slots,
        formulas.idle_slots,
        ANSWERS,
        "A batch takes as many steps as its longest answer, and in each step it has all `slots`.",
        "`sum(slots * max(batch) - sum(batch) for batch in batches)`",
        mistakes=mistakes.IDLE,
    )


TEXT = [*range(1000, 1300)]
PREFIXES = {
    "300 equal tokens of 340, blocks of 128": (TEXT + [1] * 40, TEXT + [2] * 40, 128),
    "100 equal tokens of 140, blocks of 128": (TEXT[:100] + [1] * 40, TEXT[:100] + [2] * 40, 128),
    "the same prompt of 64 tokens, blocks of 32": (TEXT[:64], TEXT[:64], 32),
    "the same prompt of 70 tokens, blocks of 32": (TEXT[:70], TEXT[:70], 32),
    "another first token, blocks of 32": ([7, *TEXT[1:90]], TEXT[:90], 32),
    "equal again after a difference, blocks of 16": ([*TEXT[:40], 7, *TEXT[41:90]], TEXT[:90], 16),
    "an earlier prompt of 50 tokens, then 200, blocks of 16": (TEXT[:50], TEXT[:200], 16),
}


@exercise("03.prefix", version=1, title="What a prefix cache finds", minutes=6)
def prefix(cached_tokens: Callable[[Sequence[int], Sequence[int], int], float]) -> None:
    require_function(cached_tokens, "cached_tokens")

    require_formula(
        cached_tokens,
        formulas.cached_tokens,
        PREFIXES,
        "Compare from the first token to the first difference.",
        "`min(equal, len(prompt) - 1) // block_size * block_size`",
        mistakes=mistakes.PREFIX,
    )
