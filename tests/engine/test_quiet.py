"""What a child process says on its error stream goes to the file, and comes back when the block fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from labs.engine.run.quiet import errors_to

SHOUT = [sys.executable, "-c", "import sys; print('careful', file=sys.stderr)"]


def test_errors_of_a_child_go_to_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with errors_to(tmp_path / "log"):
        subprocess.run(SHOUT, check=True)
    subprocess.run(SHOUT, check=True)
    assert (tmp_path / "log").read_text() == "careful\n"
    assert capfd.readouterr() == ("", "careful\n")


def test_a_failure_shows_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), errors_to(tmp_path / "log"):
        subprocess.run(SHOUT, check=True)
        raise RuntimeError
    assert capfd.readouterr() == ("careful\n", "")
