"""Limits: trtllm-build's defaults, what is deduced and said, what is refused."""

from __future__ import annotations

import pytest

from engineroom.engine.config import BuildConfig, BuildError, deduce, longest
from engineroom.trtllm import tools

MODEL = {"max_position_embeddings": 2048}


def test_defaults_are_those_of_trtllm_build() -> None:
    reference = tools()["build"]
    for name in ("max_batch_size", "max_input_len", "max_num_tokens", "max_beam_width"):
        assert getattr(BuildConfig(), name) == reference.flags[f"--{name}"].default


def test_what_is_deduced_is_said() -> None:
    made, said = deduce(BuildConfig(max_batch_size=2, max_input_len=4096), MODEL)
    assert (made.max_seq_len, made.max_input_len, made.max_num_tokens) == (2048, 2048, 4096)
    assert [line.split()[0] for line in said] == ["max_seq_len", "max_input_len", "max_num_tokens"]
    again, nothing = deduce(made, MODEL)
    assert again == made and nothing == []


def test_more_than_the_model_was_trained_for_is_built_and_said() -> None:
    made, said = deduce(BuildConfig(max_batch_size=8, max_seq_len=4096), MODEL)
    assert made.max_seq_len == 4096
    assert [line.split(":")[0] for line in said] == [
        "max_seq_len 4,096 is above max_position_embeddings of the model, 2,048"
    ]


@pytest.mark.parametrize(
    ("scaling", "want"),
    [
        (None, 2048),
        ({"rope_type": "linear", "factor": 4.0}, 8192),
        ({"type": "dynamic", "factor": 2.0}, 4096),
        ({"rope_type": "llama3", "factor": 8.0}, 2048),
    ],
)
def test_max_seq_len_follows_the_rope(scaling: dict | None, want: int) -> None:
    assert longest(MODEL | {"rotary_scaling": scaling})[0] == want


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_batch_size": 0}, "--max_batch_size 0: expected a whole number from 1 up"),
        ({"max_num_tokens": -1}, "--max_num_tokens -1"),
        ({"max_beam_width": 4}, "no beam search"),
        ({"kv_cache_type": "continuous"}, "only a paged KV cache"),
        ({"tokens_per_block": 24}, "power of two"),
    ],
)
def test_refused(limits: dict, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        BuildConfig(**limits)


def test_fewer_tokens_than_requests() -> None:
    with pytest.raises(BuildError, match="--max_num_tokens 8 is below --max_batch_size 16"):
        deduce(BuildConfig(max_batch_size=16, max_num_tokens=8), MODEL)
