"""Killed or interrupted at any moment: the output is complete, or no reader takes it and the next run replaces it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from engineroom.checkpoint import CheckpointError, ModelConfig, convert, open_checkpoint
from engineroom.kit.output import SUFFIX
from tests.engineroom.checkpoint.models import LAYOUT, convert_once, write

BIGGER = ModelConfig("LlamaForCausalLM", 512, 12, 8, 4, 64, 2048, 4096)  # some 100 MB in bfloat16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "hf"
    write(folder, BIGGER)
    return folder


def run(source: Path, output: Path, seconds: float, number: int) -> None:
    """Start a conversion in a process of its own and send it the signal that long after it began.

    The process comes from a fork server that has torch imported and never computed with it: a fork of this one could
    wait for ever for OpenMP threads that it does not have.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engineroom.checkpoint"])
    begun = context.Event()
    child = context.Process(target=convert_once, args=(source, output, begun))
    child.start()
    assert begun.wait(60)
    time.sleep(seconds)
    with suppress(ProcessLookupError):  # it may have ended by then
        os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode is not None, "the conversion neither ended nor died"


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 40, 60, 90, 200])
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
