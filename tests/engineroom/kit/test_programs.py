"""A program that we run to its end: its output, why it fails, and nothing of it left, whatever ends its owner."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engineroom.kit import process
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import ROOT, alive, eventually

FAMILY = ["sh", "-c", "(setsid sleep 600 & echo $!); sleep 600 & echo $!; echo started; wait"]
OWNER = f"""
from engineroom.kit import process
process.run({FAMILY!r}, name="family", timeout=600)
"""


def started(home: Path) -> list[int]:
    """Return the processes of FAMILY, once both run."""
    lines: list[str] = []
    while "started" not in lines:
        lines = [line for log in home.glob("logs/family-*.log") for line in log.read_text().splitlines()]
    return [int(line) for line in lines if line.isdigit()]


def test_a_program_returns_its_output_and_leaves_nothing(data_home: Path) -> None:
    output = process.run(["sh", "-c", "echo $WORD; sleep 600 &"], name="a", timeout=60, env={"WORD": "hello"})
    assert output.splitlines()[-1] == "hello"
    assert list((data_home / "servers").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "timeout", "message"),
    [
        (["no-such-command"], 60, r"a failed\. It could not be run: .*No such file or directory"),
        (
            ["sh", "-c", "echo 'OSError: [Errno 28] No space left on device'; exit 3"],
            60,
            "is full.*Free some",
        ),
        (["sh", "-c", "exit 3"], 60, r"a failed\. It ended with exit code 3"),
        (FAMILY, 0.1, r"a failed\. It took longer than 0\.1 s"),
    ],
)
def test_a_program_that_fails_says_why(
    command: list[str], timeout: float, message: str, data_home: Path
) -> None:
    with pytest.raises(process.ProgramFailed) as caught:
        process.run(command, name="a", timeout=timeout)
    assert re.search(message, str(caught.value), re.DOTALL)
    assert list((data_home / "servers").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_ends_with_its_owner(number: signal.Signals, data_home: Path) -> None:
    """As `vllm bench serve` does when its notebook's kernel is killed."""
    line = with_sigint(signal.Handlers.SIG_DFL, [sys.executable, "-c", OWNER])
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL) as owner:
        pids = started(data_home)
        assert len(pids) == 2 and all(map(alive, pids))
        owner.send_signal(number)
    assert eventually(lambda: not any(map(alive, pids)))
    assert eventually(lambda: not list((data_home / "servers").iterdir()))
