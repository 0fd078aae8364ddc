"""Killed or interrupted at any moment: the output is complete, or no reader takes it and the next run replaces it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from labs.checkpoint import CheckpointError, Layout, Mapping, Model, convert, open_checkpoint
from labs.checkpoint.output import SUFFIX
from tests.checkpoint.models import write

BIGGER = Model("LlamaForCausalLM", 512, 12, 8, 4, 64, 2048, 4096)  # some 100 MB in bfloat16
LAYOUT = Layout(Mapping(2))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "hf"
    write(folder, BIGGER)
    return folder


def run(source: Path, output: Path, seconds: float, number: int) -> int:
    """Start a conversion in a process of its own, send it the signal; its exit code (negative: the signal)."""
    child = multiprocessing.get_context("fork").Process(target=_convert, args=(source, output))
    child.start()
    time.sleep(seconds)
    os.kill(child.pid, number)
    child.join(60)
    return child.exitcode


def _convert(source: Path, output: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while not output.exists():
        convert(source, output, layout=LAYOUT)


@pytest.mark.parametrize("milliseconds", [1, 10, 30, 60, 90, 120, 200, 400])
def test_killed(source: Path, tmp_path: Path, milliseconds: int) -> None:
    output, part = tmp_path / "out", tmp_path / f"out{SUFFIX}"
    run(source, output, milliseconds / 1000, signal.SIGKILL)
    if output.exists():
        assert len(open_checkpoint(output).load(1)) > 80
        assert not part.exists()
    else:
        if part.exists():
            with pytest.raises(CheckpointError, match="interrupted conversion left"):
                open_checkpoint(part)
        convert(source, output, layout=LAYOUT)
        open_checkpoint(output)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("milliseconds", [20, 60, 120])
def test_interrupted(source: Path, tmp_path: Path, milliseconds: int) -> None:
    run(source, tmp_path / "out", milliseconds / 1000, signal.SIGINT)
    assert not (tmp_path / f"out{SUFFIX}").exists()
    if (tmp_path / "out").exists():
        open_checkpoint(tmp_path / "out")
