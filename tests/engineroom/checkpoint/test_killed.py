"""A killed conversion leaves complete output, or output that readers refuse and that the next run replaces."""

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
from tests.engineroom.checkpoint.models import TWO_RANKS, convert_once, write_model

LARGE = ModelConfig("LlamaForCausalLM", 512, 12, 8, 4, 64, 2048, 4096)  # about 100 MB in bfloat16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "hf"
    write_model(folder, LARGE)
    return folder


def convert_and_signal(source: Path, output: Path, seconds: float, signal_number: int) -> None:
    """Start a conversion in a separate process and send it the signal `seconds` after it started.

    The process comes from a fork server that has imported torch and never computed with it: a fork of this process
    could wait forever for OpenMP threads that it does not have.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engineroom.checkpoint"])
    started = context.Event()
    child = context.Process(target=convert_once, args=(source, output, started))
    child.start()
    assert started.wait(60)
    time.sleep(seconds)
    with suppress(ProcessLookupError):  # it may already have ended
        os.kill(child.pid, signal_number)
    child.join(60)
    assert child.exitcode is not None, "the conversion neither ended nor died"


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 40, 60, 90, 200])
def test_killed(source: Path, tmp_path: Path, milliseconds: int) -> None:
    output, incomplete = tmp_path / "out", tmp_path / f"out{SUFFIX}"
    convert_and_signal(source, output, milliseconds / 1000, signal.SIGKILL)
    if output.exists():
        assert len(open_checkpoint(output).load(1)) > 80
        assert not incomplete.exists()
    else:
        if incomplete.exists():
            with pytest.raises(CheckpointError, match="left by an interrupted conversion"):
                open_checkpoint(incomplete)
        convert(source, output, sharding=TWO_RANKS)
        open_checkpoint(output)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("milliseconds", [20, 60, 120])
def test_interrupted(source: Path, tmp_path: Path, milliseconds: int) -> None:
    convert_and_signal(source, tmp_path / "out", milliseconds / 1000, signal.SIGINT)
    assert not (tmp_path / f"out{SUFFIX}").exists()
    if (tmp_path / "out").exists():
        open_checkpoint(tmp_path / "out")
