"""Three functions of a small server, each healthy and with a bottleneck in it: what a learner is to find and mend.

Every step of the server calls all three. A learner's server has one bottleneck, drawn by `planted_for`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from labs.kit import progress

UNDECODABLE = "\ufffd"  # ends a text whose last character is not complete

ChooseToken = Callable[[Tensor], int]
CacheLayout = Callable[[Tensor], Tensor]
Decode = Callable[[Sequence[int]], str]
Detokenize = Callable[[Sequence[int], int, Decode], str]


def choose_token(logits: Tensor) -> int:
    """The token with the largest logit. logits: float32 [vocab_size]."""
    return int(logits.argmax())


def cache_layout(cache: Tensor) -> Tensor:
    """The keys or values of one layer, contiguous [num_blocks, tokens_per_block, num_kv_heads, head_size]."""
    return cache.contiguous()


def detokenize(token_ids: Sequence[int], num_sent: int, decode: Decode) -> str:
    """The text of an answer behind that of its first `num_sent` tokens; "" while its last character is incomplete."""
    begin = max(0, num_sent - 4)
    sent, text = decode(token_ids[begin:num_sent]), decode(token_ids[begin:])
    return "" if text.endswith(UNDECODABLE) else text[len(sent) :]


def choose_token_on_host(logits: Tensor) -> int:
    """The token with the largest logit. logits: float32 [vocab_size]."""
    row = logits.tolist()
    ranked = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    return ranked[0]


def cache_layout_by_head(cache: Tensor) -> Tensor:
    """The keys or values of one layer, contiguous [num_blocks, tokens_per_block, num_kv_heads, head_size]."""
    by_head = cache.transpose(1, 2).contiguous()  # the order that an older kernel wanted
    return by_head.transpose(1, 2).contiguous()


def detokenize_from_start(token_ids: Sequence[int], num_sent: int, decode: Decode) -> str:
    """The text of an answer behind that of its first `num_sent` tokens; "" while its last character is incomplete."""
    texts = [""] + [decode(token_ids[: end + 1]) for end in range(len(token_ids))]  # after each token
    sent, text = texts[num_sent], texts[-1]
    return "" if text.endswith(UNDECODABLE) else text[len(sent) :]


@dataclass(frozen=True)
class HostFunctions:
    """What the server calls in each step: for each answer, for each layer's keys and values, for each new token."""

    choose_token: ChooseToken = choose_token
    cache_layout: CacheLayout = cache_layout
    detokenize: Detokenize = detokenize


SLOW: dict[str, Callable[..., object]] = {
    "choose_token": choose_token_on_host,
    "cache_layout": cache_layout_by_head,
    "detokenize": detokenize_from_start,
}
# what a healthy function touches in one call, with room for other ways to write it
LARGEST_PER_CALL = {"choose_token": 16, "cache_layout": 0, "detokenize": 24}
UNITS = {
    "choose_token": "logits read into Python",
    "cache_layout": "keys and values copied",
    "detokenize": "tokens decoded",
}


def planted(span: str) -> HostFunctions:
    """The server's functions with the bottleneck in the one of this name. Raises KeyError for another name."""
    return with_function(HostFunctions(), span, SLOW[span])


def planted_for(exercise: str) -> HostFunctions:
    """The functions with one bottleneck, drawn for this learner: the same one each time."""
    return planted(drawn_span(exercise))


def drawn_span(exercise: str) -> str:
    return random.Random(f"{progress.identity()} {exercise}").choice(sorted(SLOW))


def with_function(functions: HostFunctions, span: str, function: Callable[..., object]) -> HostFunctions:
    """A copy with another function of this name."""
    return replace(functions, **{span: function})
