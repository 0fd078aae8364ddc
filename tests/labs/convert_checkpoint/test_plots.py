"""The pictures of lesson 04 say what the rank files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineroom import checkpoint
from labs.convert_checkpoint import plots

COURSE_MODEL = Path(__file__).parents[3] / "models" / "course"


@pytest.mark.parametrize("tp_size", [2, 4, 8])  # 8: more ranks than colours
def test_parallel_weights_are_those_of_the_plan(tp_size: int, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint.open_model(COURSE_MODEL).model
    targets = checkpoint.plan(model, checkpoint.Sharding(checkpoint.Mapping(tp_size)))
    fc, proj = (
        [target.shape for target in targets if target.name.endswith(f"layers.0.mlp.{name}.weight")]
        for name in ("fc", "proj")
    )
    assert len(fc) == len(proj) == tp_size
    plots.parallel(fc, proj)
    part, inputs = model.intermediate_size // tp_size, model.intermediate_size
    assert f"each rank has {part} of the {inputs} rows" in capsys.readouterr().out
