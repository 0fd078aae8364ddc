"""Wrong formulas that learners write, each with the hint that names its mistake."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

from labs.kv_cache_and_batching.formulas import (
    Tokens,
    batches,
    blocks_per_request,
    bytes_per_token,
    cached_tokens,
    common_prefix,
    idle_slots,
    max_concurrency,
)

WrongFormulas = list[tuple[Callable[..., Any], str]]


def equal_positions(earlier: Tokens, prompt: Tokens) -> int:
    return sum(a == b for a, b in zip(earlier, prompt, strict=False))


def whole_blocks(num_tokens: int, size: int) -> int:
    return num_tokens // size * size


def shared(earlier: Tokens, prompt: Tokens) -> int:
    return min(common_prefix(earlier, prompt), len(prompt) - 1)


KV: WrongFormulas = [
    (
        lambda sizes, size: bytes_per_token(sizes, size) / 2,
        "That is half of it. Keys and values are both cached.",
    ),
    (
        lambda sizes, size: (
            bytes_per_token(sizes, size) / sizes["num_key_value_heads"] * sizes["num_attention_heads"]
        ),
        "You took the query heads. Only KV heads are cached: `num_key_value_heads`.",
    ),
    (
        lambda sizes, size: bytes_per_token(sizes, size) / sizes["num_hidden_layers"],
        "That is one layer. Every layer has keys and values of its own.",
    ),
    (
        lambda sizes, size: bytes_per_token(sizes, size) / sizes["head_dim"] * sizes["hidden_size"],
        "You took `hidden_size`. A KV head is `head_dim` wide.",
    ),
    (
        lambda sizes, size: 2 * sizes["num_hidden_layers"] * sizes["hidden_size"] * size,
        "`hidden_size` would be right without grouped-query attention. KV heads × `head_dim` is less.",
    ),
    (
        lambda sizes, size: bytes_per_token(sizes, size) / sizes["head_dim"],
        "You left out `head_dim`: a key is a vector of that many values.",
    ),
    (
        lambda sizes, size: bytes_per_token(sizes, size) / sizes["num_key_value_heads"],
        "That is one head. Every KV head has a key and a value of its own.",
    ),
    (lambda sizes, size: 8 * bytes_per_token(sizes, size), "Those are bits."),
    (lambda sizes, size: bytes_per_token(sizes, 1), "That counts values. Each has `itemsize` bytes."),
    (lambda sizes, size: bytes_per_token(sizes, 2), "2 bytes are right for bfloat16 only: use `itemsize`."),
    (lambda sizes, size: bytes_per_token(sizes, 4), "4 bytes are right for float32 only: use `itemsize`."),
]

CONCURRENCY: WrongFormulas = [
    (
        lambda blocks, size, prompt, answer: blocks,
        "That is how many blocks there are. A request needs several.",
    ),
    (
        lambda blocks, size, prompt, answer: max(1, max_concurrency(blocks, size, prompt, answer)),
        "A request that needs more blocks than there are does not run: the answer is 0.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks * size // (prompt + answer),
        "You counted tokens. No two of these requests share a block, and the last block of a request is rarely full: "
        "count whole blocks.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks * size / (prompt + answer),
        "You counted tokens, and part of a request cannot run. Count whole blocks, and round down.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks / blocks_per_request(size, prompt, answer),
        "Round down: a request that fits only in part does not run.",
    ),
    (
        lambda blocks, size, prompt, answer: ceil(blocks / blocks_per_request(size, prompt, answer)),
        "You rounded up. The last of these requests does not fit completely.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks // blocks_per_request(size, prompt, 0),
        "You counted the prompt alone. The answer's tokens have keys and values too.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks // blocks_per_request(size, answer, 0),
        "You counted the answer alone. The prompt's tokens have keys and values too.",
    ),
    (
        lambda blocks, size, prompt, answer: (
            blocks // (blocks_per_request(size, prompt, 0) + blocks_per_request(size, answer, 0))
        ),
        "You rounded prompt and answer up separately. The answer begins in the prompt's last block.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks // max(1, (prompt + answer) // size),
        "You rounded the blocks of a request down. Its last tokens need a block too.",
    ),
    (
        lambda blocks, size, prompt, answer: blocks_per_request(size, prompt, answer),
        "That is how many blocks one request needs. How many times does the cache have that many?",
    ),
]

IDLE: WrongFormulas = [
    (
        lambda lengths, slots: sum(len(batch) * max(batch) - sum(batch) for batch in batches(lengths, slots)),
        "The last batch has fewer requests than slots. Its empty slots are idle in every step, too.",
    ),
    (
        lambda lengths, slots: idle_slots(sorted(lengths), slots),
        "You sorted the answers. Nobody knows their lengths in advance: requests are batched in order of arrival.",
    ),
    (
        lambda lengths, slots: idle_slots(sorted(lengths, reverse=True), slots),
        "You sorted the answers. Nobody knows their lengths in advance: requests are batched in order of arrival.",
    ),
    (
        lambda lengths, slots: len(lengths) * max(lengths) - sum(lengths),
        "You let every request take as long as the longest of all. It waits for the longest of its batch.",
    ),
    (
        lambda lengths, slots: slots * max(lengths) - sum(lengths),
        "You took one batch for all. A batch has at most `slots` requests.",
    ),
    (
        lambda lengths, slots: sum(max(batch) for batch in batches(lengths, slots)),
        "Those are the steps of the run. In how many slots of each step is nothing computed?",
    ),
    (
        lambda lengths, slots: sum(slots * max(batch) for batch in batches(lengths, slots)),
        "Those are all slots of all steps. Subtract those in which a token is computed.",
    ),
    (
        lambda lengths, slots: sum(max(batch) - min(batch) for batch in batches(lengths, slots)),
        "You counted the slot that is idle longest. The others of the batch are idle as well.",
    ),
    (
        lambda lengths, slots: (
            idle_slots(lengths, slots) / sum(slots * max(b) for b in batches(lengths, slots))
        ),
        "That is a share. Return the number of idle slots.",
    ),
    (lambda lengths, slots: sum(lengths), "Those are the busy slots, one for each token."),
]

PREFIX: WrongFormulas = [
    (
        lambda earlier, prompt, size: whole_blocks(common_prefix(earlier, prompt), size),
        "The last token of a prompt is always computed: its logits give the first token of the answer. So the block "
        "that ends with it is not found.",
    ),
    (
        lambda earlier, prompt, _size: common_prefix(earlier, prompt),
        "Only full blocks have a hash. Round down to whole blocks, a multiple of `block_size`.",
    ),
    (
        lambda earlier, prompt, size: shared(earlier, prompt),
        "Only full blocks have a hash. Round down to whole blocks, a multiple of `block_size`.",
    ),
    (
        lambda earlier, prompt, size: cached_tokens(earlier, prompt, size) // size,
        "Those are blocks. Return tokens.",
    ),
    (
        lambda earlier, prompt, size: -(-common_prefix(earlier, prompt) // size) * size,
        "You rounded up. A block that is equal only in part is not found.",
    ),
    (
        lambda earlier, prompt, size: whole_blocks(
            min(equal_positions(earlier, prompt), len(prompt) - 1), size
        ),
        "You count equal tokens after a difference. A block's hash covers all tokens before it: after the first "
        "difference nothing is found.",
    ),
    (
        lambda earlier, prompt, size: whole_blocks(equal_positions(earlier, prompt), size),
        "You count equal tokens after a difference. A block's hash covers all tokens before it: after the first "
        "difference nothing is found.",
    ),
    (
        lambda earlier, prompt, size: len(prompt) - cached_tokens(earlier, prompt, size),
        "Those are the tokens that must be computed. Return those that are found.",
    ),
    (
        lambda earlier, prompt, size: whole_blocks(min(len(earlier), len(prompt) - 1), size),
        "You compare lengths, not tokens.",
    ),
    (
        lambda earlier, prompt, size: cached_tokens(earlier, prompt, 16),
        "16 is vLLM's block size on a GPU. Use `block_size`.",
    ),
]
