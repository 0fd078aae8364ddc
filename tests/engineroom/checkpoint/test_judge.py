"""Conversions equal NVIDIA ModelOpt 0.37.0's exports bit for bit: each family, tied and untied, on 1 to 16 ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engineroom.checkpoint import Mapping, Sharding, convert, diff, open_checkpoint
from engineroom.checkpoint.diff import diff_config
from engineroom.checkpoint.harmless import MODELOPT_REASONS
from tests.engineroom.checkpoint.judge.cases import EXPORTS, cases

CASES = [case["id"] for case in cases()]


@pytest.mark.parametrize(("tp_size", "pp_size"), EXPORTS)
@pytest.mark.parametrize("case", CASES)
def test_equal_to_modelopt(
    modelopt_exports: Path, tmp_path: Path, case: str, tp_size: int, pp_size: int
) -> None:
    # ModelOpt always shards the embedding table
    sharding = Sharding(Mapping(tp_size, pp_size), use_parallel_embedding=True)
    folder = modelopt_exports / case
    converted = open_checkpoint(convert(folder / "hf", tmp_path / "out", sharding=sharding))
    exported = open_checkpoint(folder / f"tp{tp_size}-pp{pp_size}")
    differences = diff(converted, exported)
    assert [str(difference) for difference in differences if not difference.harmless_reason] == []
    assert len(converted.ranks) == tp_size * pp_size


def test_every_reason_is_needed(modelopt_exports: Path, tmp_path: Path) -> None:
    """Every key that is called harmless differs in at least one case."""
    differing: set[str] = set()
    for case in CASES:
        sharding = Sharding(Mapping(1), use_parallel_embedding=True)
        folder = modelopt_exports / case
        converted = open_checkpoint(convert(folder / "hf", tmp_path / case, sharding=sharding))
        differences = diff(converted, open_checkpoint(folder / "tp1-pp1"))
        differing |= {difference.name for difference in differences if difference.location == "config"}
    assert differing == MODELOPT_REASONS.keys()


def test_keys_that_change_the_engine_are_compared(modelopt_exports: Path) -> None:
    """ModelOpt writes these keys, so the comparison above covers them."""
    config = json.loads((modelopt_exports / "llama31-untied" / "tp2-pp1" / "config.json").read_text())
    sizes = {"head_size", "num_key_value_heads", "vocab_size"}
    assert sizes | {"dtype", "rotary_base", "rotary_scaling", "norm_epsilon"} <= config.keys()


def test_only_absence_is_harmless() -> None:
    assert all(difference.harmless_reason for difference in diff_config({"mlp_bias": False}, {}))
    for left, right in (
        ({"mlp_bias": False}, {"mlp_bias": True}),
        ({"dtype": "float16"}, {}),
        ({"mapping": {"tp_size": 1}}, {"mapping": {"tp_size": 2}}),
    ):
        assert [difference.harmless_reason for difference in diff_config(left, right)] == [""]
    differences = diff_config({"mapping": {"tp_size": 1}}, {"mapping": {"tp_size": 2}})
    assert [difference.name for difference in differences] == ["mapping.tp_size"]
