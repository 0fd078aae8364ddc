"""From logits to the next token: greedy, temperature, top-k, top-p, on the engine's device, for all requests at once.

The noise of a draw is a function of (seed, position, word) alone, so an answer does not depend on who else is served,
nor on being paused and computed again. Mixing after "Fast splittable pseudorandom number generators" (Steele et al.,
2014); the largest of log-probability plus Gumbel noise is a draw from the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingParams:
    """Names as in TensorRT-LLM's SamplingParams; temperature 0 is greedy, top_k 0 and top_p 1 are off.

    `stop_words` are token sequences that end the answer; `logprobs` asks for the chosen token's log-probability.
    Raises ValueError for a value out of its range.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    end_id: int | None = None
    stop_words: tuple[tuple[int, ...], ...] = ()
    logprobs: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "max_tokens": (self.max_tokens >= 1, "from 1 up"),
            "temperature": (self.temperature >= 0, "from 0 up"),
            "top_k": (self.top_k >= 0, "from 0 up, 0 for all"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "seed": (self.seed is None or -(2**63) <= self.seed < 2**63, "of 64 bits"),
        }
        for name, (right, wanted) in ranges.items():
            if not right:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number {wanted}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def sample(
    logits: Tensor,
    likeliest: Tensor,
    params: Sequence[SamplingParams],
    seeds: Sequence[int],
    positions: Sequence[int],
) -> Tensor:
    """One token for each row, int64 [requests] on the device of `logits`, float32 [requests, vocabulary].

    `likeliest`: the row's likeliest token, which is the answer where a request is greedy.
    """
    tokens = likeliest.clone()
    if rows := [row for row, one in enumerate(params) if not one.greedy]:
        where = torch.tensor(rows, device=logits.device)
        chosen = [params[row] for row in rows]
        key = torch.tensor([[seeds[row], positions[row]] for row in rows], device=logits.device)
        scores = cut(logits[where] / column([one.temperature for one in chosen], logits), chosen)
        tokens[where] = (scores + gumbel(key, logits.shape[1])).argmax(-1)
    return tokens


def logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each row's token, before temperature, top-k and top-p; float32 [requests]."""
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


def cut(scores: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Words beyond top-k, then beyond top-p, at minus infinity; the word that crosses top-p's line stays."""
    if all(one.top_k == 0 and one.top_p == 1 for one in params):
        return scores
    ordered, words = scores.sort(descending=True).values, scores.shape[1]
    most = column([one.top_k or words for one in params], scores)
    rank = torch.arange(words, device=scores.device)
    share = ordered.masked_fill(rank >= most, -torch.inf).softmax(-1)
    kept = (share > 0) & (share.cumsum(-1) - share < column([one.top_p for one in params], scores))
    least = ordered.gather(1, kept.sum(-1, keepdim=True).clamp(min=1) - 1)
    return scores.masked_fill(scores < least, -torch.inf)


def gumbel(key: Tensor, words: int) -> Tensor:
    """Noise float32 [requests, words]; key int64 [requests, 2]: seed and position."""
    counter = mix(mix(key[:, :1]) + key[:, 1:]) + torch.arange(words, device=key.device)
    uniform = ((mix(counter) & (2**40 - 1)).double() + 0.5) / 2**40
    return -torch.log(-torch.log(uniform)).float()


def mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64, in int64 that wraps around."""
    x = x - 0x61C8864680B583EB  # that is + 0x9E3779B97F4A7C15
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & (2**33 - 1))


def column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
