"""From logits to the next token: greedy, temperature, top-k, top-p, each request with its own seed."""

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
        }
        for name, (right, wanted) in ranges.items():
            if not right:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number {wanted}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def generator(params: SamplingParams) -> torch.Generator:
    """The random stream of one request; without a seed it differs from run to run."""
    made = torch.Generator()
    made.manual_seed(params.seed) if params.seed is not None else made.seed()
    return made


def sample(
    logits: Tensor, params: Sequence[SamplingParams], streams: Sequence[torch.Generator]
) -> tuple[list[int], list[float]]:
    """One token for each row, and its log-probability (of the distribution before top-k and top-p; 0 if not asked).

    logits: float32 [requests, vocabulary].
    """
    tokens = logits.argmax(-1).tolist()
    for row, (one, stream) in enumerate(zip(params, streams, strict=True)):
        if not one.greedy:
            tokens[row] = draw(logits[row].cpu(), one, stream)
    if not any(one.logprobs for one in params):
        return tokens, [0.0] * len(tokens)
    chosen = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens]
    return tokens, chosen.tolist()


def draw(logits: Tensor, params: SamplingParams, stream: torch.Generator) -> int:
    """One token by chance. The draw uses one uniform number per word, so it does not depend on who else is served."""
    scaled = logits / params.temperature
    if params.top_k:
        scaled[scaled < scaled.topk(min(params.top_k, len(scaled))).values[-1]] = -torch.inf
    probability = scaled.softmax(-1)
    if params.top_p < 1:
        ordered, order = probability.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= params.top_p  # the word that crosses the line stays
        probability[order[beyond]] = 0
    noise = torch.empty_like(probability).exponential_(generator=stream)
    return int((probability / noise).argmax())
