"""Lesson 04's open challenge: tell faulty conversions from correct ones with as few tokens as possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy

import torch

from engineroom.checkpoint.checkpoint import Checkpoint
from engineroom.checkpoint.sharded_model import ShardedModel, Weights
from labs.kit.challenge import Challenge, ChallengeResult, Measurement

CHALLENGE = Challenge("04.challenge", first_bar=1.5)
RETURN = "return True for a faulty conversion, False for a correct one."
BASELINE_TOKENS = 16  # tokens of the probe with which the baseline asks both models of each pair


class Probe:
    """A model that counts the tokens that it computes."""

    def __init__(self, model: ShardedModel) -> None:
        self._model = model
        self.num_tokens = 0
        self.vocab_size = model.model.vocab_size

    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """Logits after each token, float32 [len(token_ids), vocab_size]."""
        self.num_tokens += len(token_ids)
        return self._model.logits(list(map(int, token_ids)))


Inspector = Callable[[Probe, Probe], object]  # (reference, suspect) -> whether the suspect is faulty


async def judge(checkpoint: Checkpoint, inspect: Inspector) -> ChallengeResult:
    """Judge `inspect` on faulty and correct conversions of `checkpoint`, which has one rank, by the tokens it computes.

    `inspect` must be right about all of them: a false alarm counts as much as a missed fault.
    """
    return await CHALLENGE.judge(_measure(checkpoint, inspect))


async def _measure(checkpoint: Checkpoint, inspect: Inspector) -> Measurement:
    original = ShardedModel(checkpoint)
    suspects = faulty_models(original) | correct_models(original)
    num_tokens, wrong = 0, list[str]()
    for name, model in suspects.items():
        reference, suspect = Probe(original), Probe(model)
        verdict = inspect(reference, suspect)
        if verdict is None or verdict is ...:
            return Measurement(
                math.nan, math.nan, "tokens", failure=f"`is_faulty` returned {verdict}: {RETURN}"
            )
        if bool(verdict) is not (name in FAULTS):
            wrong.append(name)
        num_tokens += reference.num_tokens + suspect.num_tokens
    baseline = 2 * BASELINE_TOKENS * len(suspects)
    failure = f"Wrong about {len(wrong)} of {len(suspects)}: {'; '.join(wrong)}." if wrong else ""
    return Measurement(num_tokens, baseline, "tokens", failure=failure)


def faulty_models(original: ShardedModel) -> dict[str, ShardedModel]:
    """Copies of a model of one rank with one fault each, by the fault's name."""
    return {name: _changed(original, change) for name, change in FAULTS.items()}


def correct_models(original: ShardedModel) -> dict[str, ShardedModel]:
    """Copies of a model of one rank that compute the same with other roundings, by what is different."""
    return {name: _changed(original, change) for name, change in HARMLESS.items()}


def _changed(original: ShardedModel, change: Callable[[ShardedModel, Weights], None]) -> ShardedModel:
    model = copy(original)
    model.ranks = [dict(weights) for weights in original.ranks]
    change(model, model.ranks[0])
    return model


def _last_layer(model: ShardedModel) -> str:
    return f"transformer.layers.{model.model.num_hidden_layers - 1}."


def swap_key_and_value(model: ShardedModel, weights: Weights) -> None:
    name = f"{_last_layer(model)}attention.qkv.weight"
    q_rows = model.model.num_attention_heads * model.model.head_size
    k, v = weights[name][q_rows:].chunk(2)  # each [kv_heads * head_size, hidden_size]
    weights[name] = torch.cat([weights[name][:q_rows], v, k])


def swap_gate_and_fc(model: ShardedModel, weights: Weights) -> None:
    fc, gate = (f"{_last_layer(model)}mlp.{name}.weight" for name in ("fc", "gate"))
    weights[fc], weights[gate] = weights[gate], weights[fc]


def shift_upper_embeddings(model: ShardedModel, weights: Weights) -> None:
    name = "transformer.vocab_embedding.weight"
    lower, upper = weights[name].chunk(2)  # each [vocab_size / 2, hidden_size]
    weights[name] = torch.cat([lower, upper.roll(1, 0)])


def use_another_rotary_base(model: ShardedModel, weights: Weights) -> None:
    model.inverse_frequencies = model.inverse_frequencies**1.5


def drop_last_head(model: ShardedModel, weights: Weights) -> None:
    name = f"{_last_layer(model)}attention.dense.weight"
    weights[name] = weights[name].clone()  # [hidden_size, heads * head_size]
    weights[name][:, -model.model.head_size :] = 0


def round_to_float16(model: ShardedModel, weights: Weights) -> None:
    weights.update({name: tensor.half().float() for name, tensor in weights.items()})


def reorder_mlp(model: ShardedModel, weights: Weights) -> None:
    prefix = f"{_last_layer(model)}mlp."
    for name in ("fc", "gate"):
        weights[f"{prefix}{name}.weight"] = weights[f"{prefix}{name}.weight"].flip(0)
    weights[f"{prefix}proj.weight"] = weights[f"{prefix}proj.weight"].flip(1)


def scale_embeddings_by_a_rounding(model: ShardedModel, weights: Weights) -> None:
    name = "transformer.vocab_embedding.weight"
    weights[name] = weights[name] * (1 + 2**-20)


FAULTS = {
    "k and v swapped in the last layer": swap_key_and_value,
    "gate and fc swapped in the last layer": swap_gate_and_fc,
    "the upper half of the embeddings shifted by one token": shift_upper_embeddings,
    "another rotary base": use_another_rotary_base,
    "the last head of the last layer lost": drop_last_head,
}
HARMLESS = {
    "float16, no fault": round_to_float16,
    "the MLP's rows in another order, no fault": reorder_mlp,
    "embeddings rounded, no fault": scale_embeddings_by_a_rounding,
}
