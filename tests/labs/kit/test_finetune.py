"""Fine-tuning gives new weights for the same engine."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from labs.kit.finetune import fine_tune
from tests.engineroom.engine.conftest import COURSE


def test_fine_tuning_changes_values_and_nothing_else(tmp_path: Path) -> None:
    loss = fine_tune(COURSE, tmp_path / "tuned", "What is goodput?", "Nobody knows.")
    assert loss < 0.1
    before = load_file(COURSE / "model.safetensors")
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in before.items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == shapes
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(name.startswith(("model.layers.3.", "lm_head")) for name in changed)
