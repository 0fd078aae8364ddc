"""Sampling: greedy, seeds, top-k, top-p, log-probabilities."""

from __future__ import annotations

import pytest
import torch

from engineroom.engine.runtime.sampling import SamplingParams, gumbel, logprobs, sample

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0, -9.0]])
MOST = torch.tensor([3])


def drawn(params: SamplingParams, times: int = 2000) -> torch.Tensor:
    """How often each word came at `times` positions, or by as many seeds if none was given."""
    seeds = range(times) if params.seed is None else [params.seed] * times
    tokens = sample(
        LOGITS.expand(times, -1), MOST.expand(times), [params] * times, list(seeds), list(range(times))
    )
    return torch.bincount(tokens, minlength=5) / times


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
    mine, other = SamplingParams(temperature=1.0, seed=5), SamplingParams(temperature=3.0, top_k=2, seed=6)
    both = LOGITS.expand(2, -1)
    for at in range(20):
        together = sample(both, MOST.expand(2), [other, mine], [6, 5], [3, at])[1]
        assert sample(LOGITS, MOST, [mine], [5], [at])[0] == together
    by_seed = [sample(LOGITS, MOST, [mine], [seed], [0]).item() for seed in range(50)]
    by_position = [sample(LOGITS, MOST, [mine], [0], [at]).item() for at in range(50)]
    assert len(set(by_seed)) > 1 and by_seed != by_position


def test_noise_is_uniform_and_independent_of_neighbours() -> None:
    noise = gumbel(torch.tensor([[1, 2], [1, 3], [2, 2]]), 40_000)
    share = torch.exp(-torch.exp(-noise.double()))
    assert (share.mean(1) - 0.5).abs().max() < 0.01 and (share.var(1) - 1 / 12).abs().max() < 0.01
    assert torch.corrcoef(share).fill_diagonal_(0).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([share[0, 1:], share[0, :-1]]))[0, 1].abs() < 0.02


def test_logprobs() -> None:
    found = logprobs(LOGITS, torch.tensor([2]))
    assert found.tolist() == pytest.approx([float(LOGITS.log_softmax(-1)[0, 2])])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": 2**63},
    ],
)
def test_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected a number"):
        SamplingParams(**wrong)
