"""Limits: trtllm-build's defaults, what is deduced and explained, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.engine.config import BuildConfig, BuildError, Limits, deduce, max_trained_len
from engineroom.trtllm import tools

PRETRAINED_CONFIG = {"max_position_embeddings": 2048}
ENOUGH = {"max_batch_size": 4, "max_input_len": 100, "max_seq_len": 200, "max_num_tokens": 64}


def test_defaults_are_those_of_trtllm_build() -> None:
    reference = tools()["build"]
    for name in ("max_batch_size", "max_input_len", "max_num_tokens", "max_beam_width"):
        assert getattr(BuildConfig(), name) == reference.flags[f"--{name}"].default


def test_what_is_deduced_is_explained() -> None:
    config = BuildConfig(max_batch_size=2, max_input_len=4096)
    limits, explanations = deduce(config, PRETRAINED_CONFIG)
    assert (limits.max_seq_len, limits.max_input_len, limits.max_num_tokens) == (2048, 2048, 4096)
    names = [explanation.split()[0] for explanation in explanations]
    assert names == ["max_seq_len", "max_input_len", "max_num_tokens"]
    assert deduce(BuildConfig(**vars(limits)), PRETRAINED_CONFIG) == (limits, [])


def test_more_than_the_model_was_trained_for_is_built_and_explained() -> None:
    limits, explanations = deduce(BuildConfig(max_batch_size=8, max_seq_len=4096), PRETRAINED_CONFIG)
    assert limits.max_seq_len == 4096
    assert [explanation.split(":")[0] for explanation in explanations] == [
        "max_seq_len 4,096 is above max_position_embeddings of the model, 2,048"
    ]


@pytest.mark.parametrize(
    ("rotary_scaling", "expected"),
    [
        (None, 2048),
        ({"rope_type": "linear", "factor": 4.0}, 8192),
        ({"type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "llama3", "factor": 8.0}, 2048),
    ],
)
def test_max_seq_len_follows_the_rope(rotary_scaling: dict[str, Any] | None, expected: int) -> None:
    assert max_trained_len(PRETRAINED_CONFIG | {"rotary_scaling": rotary_scaling})[0] == expected


@pytest.mark.parametrize(("max_seq_len", "expected"), [(1, 1), (32, 1), (33, 2), (200, 7)])
def test_the_last_block_of_a_sequence_may_be_partly_full(max_seq_len: int, expected: int) -> None:
    assert Limits(**ENOUGH | {"max_seq_len": max_seq_len}).max_blocks_per_sequence == expected


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_batch_size": 0}, "--max_batch_size 0: expected a whole number from 1 up"),
        ({"max_num_tokens": -1}, "--max_num_tokens -1"),
        ({"max_beam_width": 4}, "no beam search"),
        ({"tokens_per_block": 24}, "power of two"),
    ],
)
@pytest.mark.parametrize("kind", [BuildConfig, Limits])
def test_refused(kind: type, limits: dict[str, int], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        kind(**ENOUGH | limits)


def test_only_a_paged_kv_cache() -> None:
    with pytest.raises(BuildError, match="only a paged KV cache"):
        BuildConfig(kv_cache_type="continuous")


def test_fewer_tokens_than_requests() -> None:
    with pytest.raises(BuildError, match="--max_num_tokens 8 is below --max_batch_size 16"):
        deduce(BuildConfig(max_batch_size=16, max_num_tokens=8), PRETRAINED_CONFIG)
