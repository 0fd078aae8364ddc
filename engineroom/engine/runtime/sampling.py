"""Sample the next token of every request of a step from the logits, on the engine's device.

The noise of a draw is a function of (seed, position, token id) alone. The output of a request therefore does not depend
on which other requests are in the batch, nor on whether it was preempted and computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engineroom.kit.errors import UserError


class SamplingError(UserError, ValueError):
    """A sampling parameter is out of its range; the message begins with the parameter's name."""


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen. The names are those of TensorRT-LLM's SamplingParams.

    `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 mean no limit. `end_id` and each of `stop_words`, sequences of
    token ids, end the output. `logprobs`: whether to return the log-probability of each chosen token.
    Raises SamplingError for a value out of its range.
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
        for name, (is_valid, expected) in ranges.items():
            if not is_valid:
                raise SamplingError(f"{name} is {getattr(self, name)}; expected a number {expected}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def sample(
    logits: Tensor,
    greedy_token_ids: Tensor,
    params: Sequence[SamplingParams],
    seeds: Sequence[int],
    positions: Sequence[int],
) -> Tensor:
    """One token id for each request, int64 [num_requests], on the device of `logits`.

    logits: float32 [num_requests, vocab_size]. greedy_token_ids: int64 [num_requests], the argmax of each row, which is
    the result for a greedy request. positions: each new token's position in its sequence, from 0.
    """
    token_ids = greedy_token_ids.clone()
    rows = [row for row, request_params in enumerate(params) if not request_params.greedy]
    if not rows:
        return token_ids
    row_params = [params[row] for row in rows]
    row_indices = torch.tensor(rows, device=logits.device)  # [num_rows]
    keys = torch.tensor([[seeds[row], positions[row]] for row in rows], device=logits.device)  # [num_rows, 2]
    temperatures = _column([row_param.temperature for row_param in row_params], logits)  # [num_rows, 1]
    scores = apply_top_k_top_p(logits[row_indices] / temperatures, row_params)  # [num_rows, vocab_size]
    token_ids[row_indices] = (scores + gumbel_noise(keys, logits.shape[1])).argmax(-1)
    return token_ids


def logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability of each row's token before temperature, top-k and top-p, float32 [num_requests].

    logits: float32 [num_requests, vocab_size]; token_ids: int64 [num_requests].
    """
    return logits.log_softmax(-1).gather(1, token_ids[:, None])[:, 0]


def apply_top_k_top_p(scores: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """`scores`, float32 [num_requests, vocab_size], with minus infinity for tokens beyond top-k, then beyond top-p.

    The token whose probability crosses the limit of top-p is kept.
    """
    if all(request_params.top_k == 0 and request_params.top_p == 1 for request_params in params):
        return scores
    vocab_size = scores.shape[1]
    top_k = _column(
        [request_params.top_k or vocab_size for request_params in params], scores
    )  # [num_requests, 1]
    top_p = _column([request_params.top_p for request_params in params], scores)  # [num_requests, 1]
    sorted_scores = scores.sort(descending=True).values
    ranks = torch.arange(vocab_size, device=scores.device)  # [vocab_size]
    probabilities = sorted_scores.masked_fill(ranks >= top_k, -torch.inf).softmax(-1)
    is_kept = (probabilities > 0) & (probabilities.cumsum(-1) - probabilities < top_p)
    last_kept = is_kept.sum(-1, keepdim=True).clamp(min=1) - 1  # [num_requests, 1]
    return scores.masked_fill(scores < sorted_scores.gather(1, last_kept), -torch.inf)


def gumbel_noise(keys: Tensor, vocab_size: int) -> Tensor:
    """Gumbel noise, float32 [num_requests, vocab_size], from `keys`, int64 [num_requests, 2]: seed and position.

    The token with the largest sum of log-probability and Gumbel noise is a draw from the distribution (Gumbel-max).
    """
    token_ids = torch.arange(vocab_size, device=keys.device)
    counters = splitmix64(splitmix64(keys[:, :1]) + keys[:, 1:]) + token_ids  # [num_requests, vocab_size]
    uniform = ((splitmix64(counters) & (2**40 - 1)).double() + 0.5) / 2**40
    return -torch.log(-torch.log(uniform)).float()


def splitmix64(x: Tensor) -> Tensor:
    """One step of the generator SplitMix64, in int64 that wraps around; each value of `x` is a state of its own.

    Steele et al., "Fast splittable pseudorandom number generators", 2014. The masks turn the arithmetic right shifts of
    int64 into logical ones; the constants are those of the paper, as signed numbers.
    """
    x = x - 0x61C8864680B583EB  # + 0x9E3779B97F4A7C15
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & (2**33 - 1))


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """float32 [len(values), 1] on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
