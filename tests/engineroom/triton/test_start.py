"""Triton's start on a machine that pauses for a moment, and what a model's process imports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from engineroom.kit.diagnose import PAUSED
from engineroom.kit.process import ServerFailed
from engineroom.triton import server
from engineroom.triton.watchdog import STUB, dead_stubs, model_file
from tests.engineroom.triton.conftest import StartTriton, shm_files

PAUSE = 2.5  # seconds; Triton 2.51 waits for one second


def is_loading(process: psutil.Process, model_dir: Path) -> bool:
    """Whether this is the process of the model, and has imported NumPy."""
    with suppress(psutil.Error):
        if (model_file(process) or "").startswith(str(model_dir)):
            return any("numpy" in memory_map.path for memory_map in process.memory_maps())
    return False


def wait_for_loading(model_dir: Path) -> psutil.Process:
    while True:
        for process in psutil.Process().children(recursive=True):
            if is_loading(process, model_dir):
                return process
        time.sleep(0.02)


def add_gate(model_dir: Path) -> Path:
    """Make the model's program wait, after it has imported NumPy, until the returned file exists."""
    program, gate = model_dir / "1" / "model.py", model_dir / "gate"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
    program.write_text(program.read_text().replace("import numpy as np\n", f"import numpy as np\n{wait}"))
    return gate


def pause(model_dir: Path, gate: Path) -> None:
    process = wait_for_loading(model_dir)
    process.send_signal(signal.SIGSTOP)
    gate.touch()
    time.sleep(PAUSE)
    process.send_signal(signal.SIGCONT)


def test_a_pause_while_models_load_costs_one_more_start(
    repository: Path, start_triton: StartTriton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_dir = shutil.copytree(repository / "postprocessing", tmp_path / "repository" / "postprocessing")
    shm_before = shm_files()
    threading.Thread(target=pause, args=[model_dir, add_gate(model_dir)], daemon=True).start()
    with start_triton(tmp_path / "repository"):
        assert PAUSED in capsys.readouterr().out
    assert shm_files() <= shm_before


@pytest.mark.parametrize(
    ("reason", "expected_starts"), [(PAUSED, server.MAX_STARTS), ("The port is in use.", 1)]
)
def test_only_a_pause_leads_to_another_start_and_not_for_ever(
    repository: Path, monkeypatch: pytest.MonkeyPatch, reason: str, expected_starts: int
) -> None:
    starts: list[str] = []

    def fail(command: list[str], **options: object) -> None:
        starts.append(str(options["name"]))
        raise ServerFailed(f"triton did not start. {reason}")

    monkeypatch.setattr(server, "start", fail)
    with pytest.raises(ServerFailed, match=reason):
        server.serve(repository, name="one")
    assert starts == ["one"] * expected_starts


def test_the_stub_that_triton_only_tries_out_is_no_model_s() -> None:
    model_files: dict[int, str] = {}
    with subprocess.Popen([STUB], executable="cat", stdin=subprocess.PIPE) as stub:  # without arguments
        assert dead_stubs(os.getpid(), model_files) == set() and stub.pid not in model_files


@pytest.mark.parametrize("module", ["engineroom.triton.backend.sender", "engineroom.triton.backend.words"])
def test_models_without_an_engine_start_without_pytorch(module: str) -> None:
    utils = f"import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('pb'); import {module}"
    program = f"{utils}; print({{'torch', 'transformers', 'tritonclient'}} & set(sys.modules))"
    command = [server.ENVIRONMENT / "bin" / "python", "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
