"""The challenge counts operators: the baseline gains nothing, and no shortcut counts."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from labs.profile.challenge import CHALLENGE, LARGEST_TOP_K, batches, measure, sample_rows


def vectorised(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    scores = logits / temperature[:, None]
    smallest = scores.sort(descending=True).values.gather(1, top_k[:, None] - 1)
    return (scores.masked_fill(scores < smallest, -math.inf) + noise).argmax(-1)


def in_numpy(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Any:
    return vectorised(*(torch.tensor(x.numpy()) for x in (logits, temperature, top_k, noise)))


def in_place(logits: Tensor, temperature: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """Right, and spoils its arguments."""
    token_ids = vectorised(logits, temperature, top_k, noise)
    for tensor in (logits, temperature, noise):
        tensor.zero_()
    return token_ids


WITH_FAILURES = [
    (in_numpy, "into Python or NumPy"),
    (lambda *arguments: vectorised(*arguments).tolist(), "into Python or NumPy"),
    (lambda logits, *_: logits.argmax(-1), "tokens of a batch are others"),
    (
        lambda logits, temperature, top_k, noise: (logits / temperature[:, None] + noise).argmax(-1),
        "are others",
    ),
    (lambda *arguments: vectorised(*arguments)[:1], "returned 1 tokens for a batch of"),
    (lambda *arguments: None, "must return the token ids"),
    (lambda *arguments: 5, "must return the token ids"),
]


def test_the_baseline_gains_nothing() -> None:
    measurement = asyncio.run(measure(sample_rows))
    assert (measurement.gain, measurement.failure) == (1, "")


def test_a_whole_batch_at_once_reaches_the_first_bar() -> None:
    measurement = asyncio.run(measure(vectorised))
    assert not measurement.failure
    assert measurement.gain > CHALLENGE.first_bar
    assert asyncio.run(measure(in_place)).failure == ""


@pytest.mark.parametrize(("sampler", "failure"), WITH_FAILURES)
def test_a_shortcut_does_not_count(sampler: Any, failure: str) -> None:
    assert failure in asyncio.run(measure(sampler)).failure


def test_batches_are_the_same_each_time_and_no_two_of_the_largest_logits_are_equal() -> None:
    for arguments, repeated in zip(batches(), batches(), strict=True):
        assert all(map(torch.equal, arguments, repeated))
        logits, temperature, _, _ = arguments
        largest = (logits / temperature[:, None]).topk(LARGEST_TOP_K + 1).values
        assert all(len(row.unique()) == len(row) for row in largest)


def test_top_k_matters() -> None:
    """With another top_k, or without noise, some token of every large batch is another."""
    for logits, temperature, top_k, noise in batches():
        if len(logits) < 16:
            continue
        expected = sample_rows(logits, temperature, top_k, noise)
        for other in (torch.ones_like(top_k), torch.full_like(top_k, logits.shape[1])):
            assert not torch.equal(sample_rows(logits, temperature, other, noise), expected)
        assert not torch.equal(sample_rows(logits, temperature, top_k, torch.zeros_like(noise)), expected)
