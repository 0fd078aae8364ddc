"""A conversion takes about as long as copying the same bytes, and needs memory for a few blocks, whatever the model."""

from __future__ import annotations

from pathlib import Path

from engineroom.load.shape import SHAPES
from tools.timing.conversion import timed_conversion, timed_copy, write_source

ONE_LAYER = SHAPES["llama-3.1-8b"] | {"num_hidden_layers": 1, "vocab_size": 4000}  # 0.5 GB in bfloat16


def test_time_and_memory(tmp_path: Path) -> None:
    """Copy and convert in turn until one pair meets the limit: other work on the machine only adds time.

    The record `convert-8b-tp1-*` has the ratio on a quiet machine, below 1; here two test workers share two cores.
    """
    source = write_source(ONE_LAYER, tmp_path / "source")
    ratios: list[float] = []
    while not ratios or (min(ratios) > 3 and len(ratios) < 12):
        copy_seconds = timed_copy(source, tmp_path / "copy")
        conversion = timed_conversion(source, tmp_path / "checkpoint", tp_size=2)
        ratios.append(conversion.seconds / copy_seconds)
        assert conversion.memory_growth <= 0.3 * conversion.largest_file  # far below the promised 1.3
    assert min(ratios) <= 3, ratios
