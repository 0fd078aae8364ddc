"""Bit for bit what NVIDIA's ModelOpt 0.37.0 exports: each family, tied and untied, cut for 1 to 16 ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engineroom.checkpoint import Layout, Mapping, convert, diff, open_checkpoint
from engineroom.checkpoint.diff import diff_config
from engineroom.checkpoint.harmless import MODELOPT
from tests.engineroom.checkpoint.judge.cases import EXPORTS, cases

CASES = [case["id"] for case in cases()]


@pytest.mark.parametrize(("tp", "pp"), EXPORTS)
@pytest.mark.parametrize("case", CASES)
def test_equal_to_modelopt(judged: Path, tmp_path: Path, case: str, tp: int, pp: int) -> None:
    layout = Layout(Mapping(tp, pp), use_parallel_embedding=True)  # ModelOpt always cuts the embedding table
    ours = open_checkpoint(convert(judged / case / "hf", tmp_path / "out", layout=layout))
    theirs = open_checkpoint(judged / case / f"tp{tp}-pp{pp}")
    found = diff(ours, theirs)
    assert [str(one) for one in found if not one.harmless] == []
    assert len(ours.ranks) == tp * pp


def test_every_reason_is_needed(judged: Path, tmp_path: Path) -> None:
    """No key is excused that does not differ somewhere, and a value is excused only against an absent one."""
    differing: set[str] = set()
    for case in CASES:
        layout = Layout(Mapping(1), use_parallel_embedding=True)
        ours = open_checkpoint(convert(judged / case / "hf", tmp_path / case, layout=layout))
        found = diff(ours, open_checkpoint(judged / case / "tp1-pp1"))
        differing |= {one.name for one in found if one.where == "config"}
    assert differing == MODELOPT.keys()


def test_what_config_must_say(judged: Path) -> None:
    """The keys that change the engine are there on both sides, and compared above."""
    config = json.loads((judged / "llama31-untied" / "tp2-pp1" / "config.json").read_text())
    assert {
        "dtype",
        "rotary_base",
        "norm_epsilon",
        "head_size",
        "num_key_value_heads",
        "vocab_size",
    } <= config.keys()
    assert "rotary_scaling" in config


def test_only_absence_is_excused() -> None:
    assert all(one.harmless for one in diff_config({"mlp_bias": False}, {}))
    assert not any(one.harmless for one in diff_config({"mlp_bias": False}, {"mlp_bias": True}))
    assert not any(one.harmless for one in diff_config({"dtype": "float16"}, {}))
    assert {one.name for one in diff_config({"mapping": {"tp_size": 1}}, {"mapping": {"tp_size": 2}})} == {
        "mapping.tp_size"
    }
