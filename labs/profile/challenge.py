"""The open challenge of lesson 11: choose the tokens of a batch with the fewest operators, which are launches on a GPU.

The judge counts operators, no seconds: the result is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from labs.kit.challenge import Challenge, Measurement
from labs.kit.values import to_list
from labs.profile.counting import Touched

CHALLENGE = Challenge("11.challenge", first_bar=4)
VOCAB_SIZE = 1009
BATCH_SIZES = (16, 1, 5, 32)
LARGEST_TOP_K = 64

# logits, temperatures, top_k and noise -> token ids
Sampler = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor | Sequence[int]]


def sample_rows(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """The next token of each request, int64 [batch], row by row: the baseline.

    logits and noise: float32 [batch, vocab_size]. temperature: float32 [batch]. top_k: int64 [batch], from 1 up.
    """
    token_ids = []
    for row, logits_row in enumerate(logits):
        scores = logits_row / temperature[row]
        smallest = scores.sort(descending=True).values.gather(0, top_k[row : row + 1] - 1)
        scores = scores.masked_fill(scores < smallest, -math.inf)
        token_ids.append((scores + noise[row]).argmax())
    return torch.stack(token_ids)


def batches() -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Arguments of a sampler: batches of several sizes, each request with a temperature and a top_k of its own."""
    draw = torch.Generator().manual_seed(11)
    return [
        (
            4 * torch.randn(size, VOCAB_SIZE, generator=draw),
            0.5 + torch.rand(size, generator=draw),
            torch.randint(1, LARGEST_TOP_K + 1, (size,), generator=draw),
            -torch.log(-torch.log(torch.rand(size, VOCAB_SIZE, generator=draw))),  # Gumbel
        )
        for size in BATCH_SIZES
    ]


async def measure(sampler: Sampler) -> Measurement:
    """Compare a sampler with the baseline: the operators of all batches. Every token must stay the same."""
    counted, baseline = Touched(), Touched()
    failure = ""
    for arguments in batches():
        with baseline:
            token_ids = sample_rows(*arguments)
        copies = [tensor.clone() for tensor in arguments]
        with counted:
            output = sampler(*copies)
        failure = failure or _complaint(to_list(output), token_ids.tolist())
    if counted.values_read:
        failure = (
            f"`sample` read {counted.values_read:,} values into Python or NumPy. On a GPU the host would wait for the "
            f"device each time."
        )
    return Measurement(counted.operators, baseline.operators, "operators", failure=failure)


def _complaint(token_ids: list[object] | None, expected: list[int]) -> str:
    if token_ids is None:
        return "`sample` must return the token ids, one for each row of `logits`."
    if len(token_ids) != len(expected):
        return f"`sample` returned {len(token_ids)} tokens for a batch of {len(expected)}."
    num_different = sum(token_id != other for token_id, other in zip(token_ids, expected, strict=True))
    return (
        f"{num_different} of {len(expected)} tokens of a batch are others than row by row."
        if num_different
        else ""
    )
