"""Sampling: greedy, seeds, top-k, top-p, log-probabilities."""

from __future__ import annotations

import pytest
import torch

from labs.engine.runtime.sampling import SamplingParams, generator, sample

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0, -9.0]])


def drawn(params: SamplingParams, times: int = 2000) -> torch.Tensor:
    """How often each word came."""
    stream = generator(params)
    tokens = [sample(LOGITS, [params], [stream])[0][0] for _ in range(times)]
    return torch.bincount(torch.tensor(tokens), minlength=5) / times


def test_greedy() -> None:
    for params in (SamplingParams(), SamplingParams(temperature=5.0, top_k=1)):
        assert drawn(params, 5)[3] == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature(temperature: float) -> None:
    want = (LOGITS[0] / temperature).softmax(-1)
    assert (drawn(SamplingParams(temperature=temperature, seed=1)) - want).abs().max() < 0.04


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert (drawn(SamplingParams(temperature=1.0, top_k=2, seed=1)) > 0).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert (drawn(SamplingParams(temperature=1.0, top_p=0.6, seed=1)) > 0).tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert (drawn(SamplingParams(temperature=1.0, top_p=0.7, seed=1)) > 0).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert (drawn(SamplingParams(temperature=1.0, top_k=99, seed=1))[:4] > 0).all()


def test_a_seed_gives_the_same_answer_whoever_is_served_beside() -> None:
    mine, other = SamplingParams(temperature=1.0, seed=5), SamplingParams(temperature=3.0, seed=6)
    alone, beside, noise = generator(mine), generator(mine), generator(other)
    for _ in range(20):
        together = sample(LOGITS.expand(2, -1).clone(), [other, mine], [noise, beside])[0][1]
        assert sample(LOGITS.clone(), [mine], [alone])[0][0] == together
    assert drawn(SamplingParams(temperature=1.0), 50).ne(drawn(SamplingParams(temperature=1.0), 50)).any()


def test_logprobs() -> None:
    tokens, logprobs = sample(LOGITS, [SamplingParams(logprobs=True)], [generator(SamplingParams())])
    assert tokens == [3] and logprobs[0] == pytest.approx(float(LOGITS.log_softmax(-1)[0, 3]))


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected a number"):
        SamplingParams(**wrong)
