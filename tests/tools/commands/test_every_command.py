"""Every command ends as a program should: at each signal, and with each of its standard streams closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engineroom.checkpoint import Checkpoint
from engineroom.engine.directory import EngineDir
from engineroom.triton.deployment import describe
from engineroom.triton.render import render
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine
from tests.engineroom.kit.stubborn import eventually
from tests.tools.commands.matrix import CASES, Inputs, Run, command_paths, imported, start, words_of

__all__ = ["checkpoint", "engine"]
SECONDS = 300  # after which a command counts as hung
BUSY = [name for name, case in CASES.items() if case.busy]
SHORT = [name for name, case in CASES.items() if not case.busy]
SIGNALS = {
    "interrupt": (signal.SIG_DFL, signal.SIGINT, 130, "Interrupted."),
    "terminate a background job": (signal.SIG_IGN, signal.SIGTERM, 143, "Terminated."),
    "hang up": (signal.SIG_DFL, signal.SIGHUP, 143, "Terminated."),
}
REDIRECTIONS = {"closed": "<&- >&-", "reader has ended": "> >(exec true)"}
UNREAD = 1  # the status of a command whose output nobody reads, unless it was faster


@pytest.fixture(scope="module")
def inputs(checkpoint: Checkpoint, engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    repository = render(describe(engine_dir=engine.path), tmp_path_factory.mktemp("triton") / "repository")
    for name in ("tensorrt_llm", "preprocessing", "ensemble", "tensorrt_llm_bls"):
        (repository / name).rename(tmp_path_factory.mktemp(name) / name)  # a smaller repository starts sooner
    return Inputs(COURSE, checkpoint.directory, engine.path, repository)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because that of a socket is limited."""
    with TemporaryDirectory(prefix="command-", dir="/tmp") as name:
        yield Path(name)


def is_busy(run: Run, name: str) -> bool:
    """Wait until the command is at work; end it and return False when it does not come so far."""
    busy = CASES[name].busy
    assert busy
    if (
        eventually(lambda: busy(run) or run.process.poll() is not None, SECONDS)
        and run.process.poll() is None
    ):
        return True  # was busy a moment ago: a child may have ended since
    kill(run)
    return False


def end(run: Run, signal_number: signal.Signals) -> int:
    """Send the signal and return the exit status, once the command has ended."""
    run.process.send_signal(signal_number)
    try:
        return run.process.wait(SECONDS)
    finally:
        kill(run)  # when it has not ended


def kill(run: Run) -> None:
    if run.process.poll() is None:
        for process in run.family():
            process.kill()
        run.process.wait()


def assert_nothing_is_left(run: Run) -> None:
    """Processes that were told to end may take a moment, on a busy machine a long one."""
    eventually(lambda: not run.family() and not run.temporary_files(), SECONDS)
    family = [words_of(process)[:200] for process in run.family()]
    for process in run.family():
        process.kill()
    assert family == []
    assert run.temporary_files() == []
    assert "Traceback" not in run.text(), "\n".join(run.lines())


def test_every_command_has_a_case() -> None:
    assert sorted(CASES) == sorted(command_paths())


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("name", BUSY)
def test_a_signal_ends_work_and_servers(name: str, kind: str, inputs: Inputs, folder: Path) -> None:
    sigint, signal_number, status, message = SIGNALS[kind]
    case = CASES[name]
    if case.program and signal_number == signal.SIGINT:
        return
    run = start(name, inputs, folder, sigint)
    assert is_busy(run, name), "\n".join(run.lines())
    ended_with = end(run, signal_number)
    assert_nothing_is_left(run)
    if not case.program:
        assert (ended_with, run.lines()[-1]) == (status, message)


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize("name", ["run", "build", "timing conversion", "vllm measure", "triton serve"])
def test_what_a_killed_command_leaves_ends_and_is_removed(name: str, inputs: Inputs, folder: Path) -> None:
    """Its processes end by themselves, servers and kernels included; `engineroom stop` removes its files."""
    run = start(name, inputs, folder, signal.SIG_DFL)
    assert is_busy(run, name)
    assert end(run, signal.SIGKILL) == -signal.SIGKILL
    assert eventually(lambda: not run.family(), SECONDS)
    stop = [str(Path(sys.executable).with_name("engineroom")), "stop"]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "ENGINEROOM_HOME": str(folder / "home")}
    assert subprocess.run(stop, env=environment, timeout=SECONDS).returncode == 0
    assert run.temporary_files() == []


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("name", SHORT)
def test_a_signal_ends_a_short_command_during_its_imports(name: str, inputs: Inputs, folder: Path) -> None:
    """The command may be faster than the signal."""
    run = start(name, inputs, folder, signal.SIG_IGN)
    assert eventually(lambda: imported("typer")(run) or run.process.poll() is not None, SECONDS)
    status = end(run, signal.SIGTERM)
    assert status in (143, *CASES[name].statuses)
    assert_nothing_is_left(run)


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("redirection", REDIRECTIONS)
@pytest.mark.parametrize("name", SHORT)
def test_streams_that_nobody_reads(name: str, redirection: str, inputs: Inputs, folder: Path) -> None:
    statuses = CASES[name].statuses + ((UNREAD,) if redirection == "reader has ended" else ())
    run = start(name, inputs, folder, signal.SIG_DFL, REDIRECTIONS[redirection])
    try:
        assert run.process.wait(SECONDS) in statuses, "\n".join(run.lines())
    finally:
        kill(run)
    assert_nothing_is_left(run)
