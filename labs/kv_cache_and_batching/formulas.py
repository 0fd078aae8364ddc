"""The arithmetic of lesson 03, right and wrong: what the checks compare a learner's functions with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

Config = Mapping[str, int]  # of a config.json
Tokens = Sequence[int]  # ids


def bytes_per_token(config: Config, itemsize: int) -> int:
    """Bytes of KV cache for one token: a key and a value in each KV head of each layer."""
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * itemsize


def blocks_per_request(block_size: int, prompt: int, answer: int) -> int:
    return -(-(prompt + answer) // block_size)


def max_concurrency(num_blocks: int, block_size: int, prompt: int, answer: int) -> int:
    """Requests of these lengths, in tokens, whose blocks fit into the cache together."""
    return num_blocks // blocks_per_request(block_size, prompt, answer)


def batches(lengths: Sequence[int], slots: int) -> list[Sequence[int]]:
    """The answers that static batching computes together, in order of arrival."""
    return [lengths[begin : begin + slots] for begin in range(0, len(lengths), slots)]


def idle_slots(lengths: Sequence[int], slots: int) -> int:
    """Slots that compute nothing, summed over all steps of static batching; `lengths` are those of the answers."""
    return sum(slots * max(batch) - sum(batch) for batch in batches(lengths, slots))


def common_prefix(earlier: Tokens, prompt: Tokens) -> int:
    """How many tokens the two begin with in common."""
    pairs = zip(earlier, prompt, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def cached_tokens(earlier: Tokens, prompt: Tokens, block_size: int) -> int:
    """Tokens of `prompt` that are in whole blocks of the cache once `earlier` was computed; never the last token."""
    return min(common_prefix(earlier, prompt), len(prompt) - 1) // block_size * block_size
