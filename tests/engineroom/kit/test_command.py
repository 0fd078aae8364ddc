"""A command ends with a sentence and its exit status, whatever happened; `engineroom` imports only what it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engineroom.cli import LIBRARY
from engineroom.kit.command import CommandTarget
from engineroom.kit.command_group import load_command
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import alive

ROOT = Path(__file__).parents[3]
WAITING = """
import time
from engineroom.kit.command import application, run
app = application("Wait.")

@app.command()
def wait() -> None:
    print("waiting", flush=True)
    time.sleep(60)

run(app)
"""


FAILING = """
import errno
from engineroom.kit.command import run
from engineroom.kit.errors import UserError

def fail():
    raise {error}

run(fail)
"""
SWALLOWED = """
import signal, time
from engineroom.kit.command import run

class Destructor:
    def __del__(self):
        signal.raise_signal(signal.{name})
        for _ in range(10):
            pass

def wait():
    Destructor()
    time.sleep(60)

run(wait)
"""
ORPHAN = """
import subprocess, time
from engineroom.kit.command import run

def wait():
    subprocess.run(["sh", "-c", "trap '' TERM HUP INT; (setsid sleep 600 & echo $!)"])
    print("waiting", flush=True)
    time.sleep(60)

run(wait)
"""


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-c", code], text=True, cwd=ROOT, timeout=60, **options)


def fail(error: str) -> subprocess.CompletedProcess[str]:
    return run(FAILING.format(error=error))


def test_a_users_error_is_one_line() -> None:
    result = fail("UserError('the engine is too small. Build a larger one.')")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: the engine is too small. Build a larger one.\n"


def test_a_fault_of_the_program_names_the_file_with_its_traceback(data_home: Path) -> None:
    result = fail("KeyError('tokens')")
    assert result.returncode == 70
    [log] = (data_home / "logs").glob("fault-*.log")
    assert result.stderr.startswith("error: KeyError: 'tokens'\n") and str(log) in result.stderr
    assert "Traceback" in log.read_text() and "Traceback" not in result.stderr


def test_a_fault_is_reported_where_no_file_can_be_written(data_home: Path) -> None:
    data_home.mkdir()
    (data_home / "logs").touch()
    result = fail("KeyError('tokens')")
    assert result.returncode == 70 and "could not be saved" in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("OSError(errno.ENOSPC, 'No space left on device', '/data/x')", "A disk or /dev/shm is full."),
        ("MemoryError('cannot allocate')", "The machine is out of memory."),
        ("RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "The GPU is out of memory."),
        ("OSError(errno.EMFILE, 'Too many open files')", "Too many files are open."),
    ],
)
def test_a_fault_of_the_machine_is_no_bug_of_the_program(error: str, message: str) -> None:
    result = fail(error)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}") and "bug" not in result.stderr


@pytest.mark.parametrize(
    "code", [WAITING, WAITING.replace("run(app)", "run(wait)")], ids=["typer", "function"]
)
def test_an_interrupt_ends_with_one_line(code: str) -> None:
    line = with_sigint(signal.Handlers.SIG_DFL, [sys.executable, "-c", code])
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (130, "Interrupted.\n")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_that_a_destructor_swallows_arrives_later(name: str, status: int) -> None:
    line = with_sigint(signal.Handlers.SIG_DFL, [sys.executable, "-c", SWALLOWED.format(name=name)])
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr in ("Interrupted.\n", "Terminated.\n")


def test_an_orphan_of_a_child_ends_with_the_command() -> None:
    line = with_sigint(signal.Handlers.SIG_IGN, [sys.executable, "-c", ORPHAN])
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        orphan = int(process.stdout.readline())
        assert process.stdout.readline() == "waiting\n" and alive(orphan)
        process.terminate()
        assert process.wait(60) == 143
    assert not alive(orphan)


def test_nohup_keeps_a_command_running() -> None:
    line = ["nohup", sys.executable, "-c", WAITING]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_output_that_cannot_be_written_is_reported() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        code = "from engineroom.kit.command import run; run(lambda: print(1))"
        result = run(code, stdout=full, env=environment)
    assert result.returncode == 1
    assert result.stderr == "error: the output could not be written: No space left on device\n"


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_ends_early_is_no_error(lines: int) -> None:
    """`| head -1`: few lines meet the closed pipe at the end, many before it."""
    read, write = os.pipe()
    os.close(read)
    code = f"from engineroom.kit.command import run; run(lambda: [print(n) for n in range({lines})])"
    result = run(code, stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


def test_closed_streams_take_no_file(tmp_path: Path) -> None:
    """The next file that a program opens gets the number of a closed stream, and what is printed goes into it."""
    code = """
import os, sys
from engineroom.kit.command import run
def write():
    with open("file", "w") as file:
        os.system("echo printed")
        print("printed", sys.stdin.read())
        print("printed", file=sys.stderr)
        file.write("written")
run(write)
"""
    line = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(line, cwd=tmp_path, env=environment).returncode == 0
    assert (tmp_path / "file").read_text() == "written"


def test_a_wrong_option_is_a_usage_error() -> None:
    line = [sys.executable, "-m", "engineroom", "vllm", "--no-such-option"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and "No such option" in result.stderr


def test_help_waits_for_no_module_of_a_command() -> None:
    code = "import sys; from engineroom.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    line = [sys.executable, "-c", code, "--help"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    modules = set(result.stdout.split())
    assert "Commands:" in result.stdout and "engineroom.cli" in modules
    assert modules.isdisjoint({"torch", "transformers", *(target.module for target in LIBRARY.values())})


def test_every_command_exists() -> None:
    for target in LIBRARY.values():
        load_command(target)
    with pytest.raises(ValueError, match="has no command 'bild'"):
        load_command(CommandTarget("engineroom.engine.__main__", "", "bild"))
