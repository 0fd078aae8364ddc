"""Triton's start on a machine that stands still for a moment; what a model's process imports."""

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
from engineroom.triton.watchdog import STUB, dead_stubs, model_of
from tests.engineroom.triton.conftest import Start, shm_files

PAUSE = 2.5  # seconds; Triton 2.51 waits for one


def imports(process: psutil.Process, model: Path) -> bool:
    """Whether this is the process of `model`, a folder, and on its way through the model's file."""
    with suppress(psutil.Error):
        if (model_of(process) or "").startswith(str(model)):
            return any("numpy" in part.path for part in process.memory_maps())
    return False


def loading(model: Path) -> psutil.Process:
    while True:
        for process in psutil.Process().children(recursive=True):
            if imports(process, model):
                return process
        time.sleep(0.02)


def hold(model: Path) -> Path:
    """The model's file waits, when NumPy is there, for the file that is returned."""
    program, gate = model / "1" / "model.py", model / "go"
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
    program.write_text(program.read_text().replace("import numpy as np\n", f"import numpy as np\n{wait}"))
    return gate


def pause(model: Path, gate: Path) -> None:
    process = loading(model)
    process.send_signal(signal.SIGSTOP)
    gate.touch()
    time.sleep(PAUSE)
    process.send_signal(signal.SIGCONT)


def test_a_pause_while_models_load_costs_one_more_start(
    repository: Path, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(repository / "postprocessing", tmp_path / "repository" / "postprocessing")
    before = shm_files()
    threading.Thread(target=pause, args=[model, hold(model)], daemon=True).start()
    with start(tmp_path / "repository"):
        assert "stood still for a second while it loaded" in capsys.readouterr().out
    assert shm_files() <= before


@pytest.mark.parametrize(("reason", "starts"), [(PAUSED, server.STARTS), ("The port is in use.", 1)])
def test_only_pauses_are_worth_another_start_and_not_for_ever(
    repository: Path, monkeypatch: pytest.MonkeyPatch, reason: str, starts: int
) -> None:
    begun: list[str] = []

    def fail(line: list[str], **options: object) -> None:
        begun.append(str(options["name"]))
        raise ServerFailed(f"triton did not start. {reason}")

    monkeypatch.setattr(server, "start", fail)
    with pytest.raises(ServerFailed, match=reason):
        server.serve(repository, name="one")
    assert begun == ["one"] * starts


def test_the_stub_that_triton_only_tries_out_is_no_model_s() -> None:
    names: dict[int, str] = {}
    with subprocess.Popen([STUB], executable="cat", stdin=subprocess.PIPE) as tried:  # without arguments
        assert dead_stubs(os.getpid(), names) == set() and tried.pid not in names


@pytest.mark.parametrize("module", ["engineroom.triton.backend.sender", "engineroom.triton.backend.words"])
def test_models_without_an_engine_start_without_pytorch(module: str) -> None:
    utils = f"import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('pb'); import {module}"
    says = f"{utils}; print({{'torch', 'transformers', 'tritonclient'}} & set(sys.modules))"
    line = [server.ENVIRONMENT / "bin" / "python", "-c", says]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "set()\n"
