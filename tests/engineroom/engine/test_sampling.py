"""Sampling: greedy, seeds, top-k, top-p, log-probabilities."""

from __future__ import annotations

import pytest
import torch

from engineroom.engine.runtime.sampling import (
    SamplingError,
    SamplingParams,
    gumbel_noise,
    sample,
)
from engineroom.kit.errors import UserError

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0, -9.0]])  # [1, vocab_size]
GREEDY_TOKEN_IDS = torch.tensor([3])  # [1]


def frequencies(params: SamplingParams, num_draws: int = 2000) -> torch.Tensor:
    """The share of each token, [vocab_size]; draws differ in position and, unless `params` has a seed, in seed."""
    seeds = list(range(num_draws)) if params.seed is None else [params.seed] * num_draws
    token_ids = sample(
        LOGITS.expand(num_draws, -1),
        GREEDY_TOKEN_IDS.expand(num_draws),
        [params] * num_draws,
        seeds,
        list(range(num_draws)),
    )
    return torch.bincount(token_ids, minlength=5) / num_draws


def drawn(**params: float) -> list[int]:
    """The token ids that are drawn at least once at temperature 1."""
    return frequencies(SamplingParams(temperature=1.0, seed=1, **params)).nonzero().flatten().tolist()


def test_greedy() -> None:
    for params in (SamplingParams(), SamplingParams(temperature=5.0, top_k=1)):
        assert frequencies(params, 5)[3] == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature(temperature: float) -> None:
    expected = (LOGITS[0] / temperature).softmax(-1)
    actual = frequencies(SamplingParams(temperature=temperature, seed=1))
    assert (actual - expected).abs().max() < 0.04


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert drawn(top_k=2) == [2, 3]
    assert drawn(top_p=0.6) == [3]
    assert drawn(top_p=0.7) == [2, 3]
    assert set(drawn(top_k=99)) >= {0, 1, 2, 3}


def test_min_p_cuts_tokens_that_are_much_less_likely_than_the_likeliest() -> None:
    """The probabilities of tokens 2, 1 and 0 are 0.37, 0.14 and 0.05 times that of token 3."""
    assert drawn(min_p=1.0) == [3]
    assert drawn(min_p=0.38) == [3]
    assert drawn(min_p=0.36) == [2, 3]
    assert drawn(min_p=0.1) == [1, 2, 3]
    assert drawn(min_p=0.36, top_k=1) == [3]


def test_a_seed_gives_the_same_token_in_any_batch() -> None:
    params, neighbour = (
        SamplingParams(temperature=1.0, seed=5),
        SamplingParams(temperature=3.0, top_k=2, seed=6),
    )
    for position in range(20):
        batch = sample(
            LOGITS.expand(2, -1), GREEDY_TOKEN_IDS.expand(2), [neighbour, params], [6, 5], [3, position]
        )
        assert sample(LOGITS, GREEDY_TOKEN_IDS, [params], [5], [position])[0] == batch[1]
    by_seed = [sample(LOGITS, GREEDY_TOKEN_IDS, [params], [seed], [0]).item() for seed in range(50)]
    by_position = [
        sample(LOGITS, GREEDY_TOKEN_IDS, [params], [0], [position]).item() for position in range(50)
    ]
    assert len(set(by_seed)) > 1 and by_seed != by_position


def test_noise_is_uniform_and_independent_of_neighbours() -> None:
    noise = gumbel_noise(torch.tensor([[1, 2], [1, 3], [2, 2]]), 40_000)
    uniform = torch.exp(-torch.exp(-noise.double()))
    assert (uniform.mean(1) - 0.5).abs().max() < 0.01 and (uniform.var(1) - 1 / 12).abs().max() < 0.01
    assert torch.corrcoef(uniform).fill_diagonal_(0).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([uniform[0, 1:], uniform[0, :-1]]))[0, 1].abs() < 0.02


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 1.1},
        {"min_p": -0.1},
        {"seed": 2**63},
        {"min_tokens": -1},
        {"min_tokens": 33},  # above max_tokens
        {"logprobs": -1},
        {"prompt_logprobs": -1},
        {"presence_penalty": 2.1},
        {"presence_penalty": -2.1},
        {"frequency_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"repetition_penalty": float("nan")},
    ],
)
def test_out_of_range(params: dict[str, float]) -> None:
    with pytest.raises(SamplingError, match=f"{next(iter(params))} is .*; expected a number") as error:
        SamplingParams(**params)
    assert isinstance(error.value, UserError)
