"""A conversion takes about as long as copying the same bytes, and memory for a few blocks, whatever the model."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from labs.checkpoint.measure import timed_conversion, timed_copy, write_source
from labs.load.shape import SHAPES

SMALLER = SHAPES["llama-3.1-8b"] | {"num_hidden_layers": 1, "vocab_size": 16000}  # 0.7 GB in bfloat16


def test_time_and_memory(tmp_path: Path) -> None:
    source = write_source(SMALLER, tmp_path / "source")
    ratios, growths = [], []
    for _ in range(3):
        copying = timed_copy(source, tmp_path / "copy")
        seconds, growth, _, largest = timed_conversion(source, tmp_path / "made", tp_size=2)
        ratios.append(seconds / copying)
        growths.append(growth / largest)
    assert median(ratios) <= 2, ratios
    assert max(growths) <= 0.3, growths  # far below the 1.3 that is promised: blocks, not tensors
