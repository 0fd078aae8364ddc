"""One step: penalties, logit_bias, min_tokens and log-probabilities, each as its definition says."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch

from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampler import sample_tokens, top_logprobs
from engineroom.engine.runtime.sampling import SamplingError, SamplingParams


def chosen(logits: list[float], prompt: list[int], output: list[int], **params: Any) -> int:
    """The next token of one request with these logits."""
    request = Request(list(prompt), SamplingParams(**params))
    request.token_ids += output
    rows = torch.tensor([logits])
    return int(sample_tokens(rows, rows.argmax(-1), [request]).token_ids)


def reference_scores(logits: list[float], prompt: list[int], output: list[int], **params: Any) -> list[float]:
    """The penalties written out token by token, as vLLM's documentation defines them."""
    scores, counts = list(logits), Counter(output)
    for token_id, bias in params.get("logit_bias", ()):
        scores[token_id] += bias
    for token_id in {*prompt, *output}:
        penalty = params.get("repetition_penalty", 1)
        scores[token_id] = scores[token_id] / penalty if scores[token_id] > 0 else scores[token_id] * penalty
    for token_id, count in counts.items():
        scores[token_id] -= count * params.get("frequency_penalty", 0) + params.get("presence_penalty", 0)
    return scores


def test_penalties_and_biases_choose_the_token_of_their_definition() -> None:
    rng = random.Random(1)
    for _ in range(300):
        logits = [rng.uniform(-3, 3) for _ in range(12)]
        prompt, output = rng.choices(range(12), k=4), rng.choices(range(12), k=rng.randrange(6))
        params = {
            "presence_penalty": rng.choice([0, 1.5, -1.0]),
            "frequency_penalty": rng.choice([0, 0.7, -0.5]),
            "repetition_penalty": rng.choice([1, 1.8, 0.6]),
            "logit_bias": tuple((token_id, rng.uniform(-2, 2)) for token_id in rng.sample(range(12), 2)),
        }
        scores = reference_scores(logits, prompt, output, **params)
        assert chosen(logits, prompt, output, **params) == scores.index(max(scores))


@pytest.mark.parametrize("end", [{"end_id": 3}, {"stop_words": ((3,),)}])
def test_min_tokens_forbids_end_tokens_until_then(end: dict[str, Any]) -> None:
    logits = [0.0, 1.0, 2.0, 9.0]
    for num_output_tokens in range(4):
        token_id = chosen(logits, [0], [0] * num_output_tokens, min_tokens=2, **end)
        assert token_id == (2 if num_output_tokens < 2 else 3)


def test_each_request_of_a_step_has_its_own_rules() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0]]).expand(3, -1)
    params = [SamplingParams(), SamplingParams(logit_bias=((3, -100.0),)), SamplingParams(presence_penalty=2)]
    requests = [Request([0], request_params) for request_params in params]
    requests[2].token_ids.append(3)
    sampled = sample_tokens(logits, logits.argmax(-1), requests)
    assert sampled.token_ids.tolist() == [3, 2, 3]
    assert sampled.logprobs is None
    assert logits.tolist() == [[0.0, 1.0, 2.0, 9.0]] * 3  # a CUDA graph owns them


def test_a_step_without_rules_keeps_the_graph_s_tokens() -> None:
    logits, greedy_token_ids = torch.zeros(2, 4), torch.tensor([3, 2])  # not the argmax
    requests = [Request([0], SamplingParams(logprobs=count)) for count in (None, 1)]
    assert sample_tokens(logits, greedy_token_ids, requests).token_ids is greedy_token_ids


def test_top_logprobs() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 1.0, 2.0, 3.0]])
    logprobs = logits.log_softmax(-1)
    first, second = top_logprobs(logits, torch.tensor([2, 0]), 2).read([2, None])
    assert first.logprob == pytest.approx(float(logprobs[0, 2]))
    assert [token_id for token_id, _ in first.top] == [3, 2]
    assert [value for _, value in first.top] == pytest.approx([float(logprobs[0, 3]), float(logprobs[0, 2])])
    assert (second.logprob, second.top) == (pytest.approx(float(logprobs[1, 0])), ())


@pytest.mark.parametrize(
    ("logit_bias", "message"), [(((5, 100.5),), "100.5 for token 5"), (((5, float("nan")),), "nan")]
)
def test_a_bias_out_of_range(logit_bias: tuple[tuple[int, float], ...], message: str) -> None:
    with pytest.raises(SamplingError, match=f"logit_bias is {message}"):
        SamplingParams(logit_bias=logit_bias)
