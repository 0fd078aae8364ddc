"""What a killed program leaves in TMPDIR is removed by the next one; what a living program has there is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engineroom.kit import tmpdir
from tests.engineroom.kit.stubborn import ROOT

OWNER = """
import os, sys, tempfile, time
from engineroom.kit import tmpdir
tmpdir.own_folder()
folder = tempfile.mkdtemp(prefix="lesson-04-")
if "fork" in sys.argv and os.fork() == 0:
    sys.exit()
print(folder, os.environ["TMPDIR"], flush=True)
sys.stdin.readline()
"""
Start = Callable[..., tuple[subprocess.Popen[str], Path]]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TMPDIR of this process and its children."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    """Start a process that owns a folder, and return it with that folder."""
    owners = []

    def start_owner(*arguments: str) -> tuple[subprocess.Popen[str], Path]:
        line = [sys.executable, "-c", OWNER, *arguments]
        owner = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        owners.append(owner)
        lesson, folder = map(Path, owner.stdout.readline().split())
        assert lesson.parent == folder and folder.parent == base
        return owner, folder

    yield start_owner
    for owner in owners:
        owner.kill()
        owner.communicate()


def kill(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait()


def test_an_owner_that_ends_removes_its_folder(start: Start, base: Path) -> None:
    owner, folder = start()
    owner.communicate("\n", timeout=60)
    assert not folder.exists() and list(base.iterdir()) == []


def test_a_killed_owners_folder_is_removed_by_the_next_program(start: Start, base: Path) -> None:
    killed, folder = start()
    kill(killed)
    assert folder.exists()
    _, other = start()
    assert list(base.iterdir()) == [other]


def test_a_living_owner_keeps_its_folder_and_strangers_keep_theirs(start: Start, base: Path) -> None:
    _, folder = start()
    killed, abandoned = start()
    kill(killed)
    stranger, link = base / "engineroom-stranger", base / "engineroom-link"
    stranger.mkdir()
    link.symlink_to(abandoned)
    assert tmpdir.remove_abandoned() == [abandoned]
    assert sorted(base.iterdir()) == sorted([folder, stranger, link])


def test_a_fork_that_ends_takes_nothing_along(start: Start) -> None:
    _, folder = start("fork")
    assert folder.exists() and tmpdir.remove_abandoned() == []


def test_folders_of_children_lie_beside_their_parents(
    start: Start, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = start()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert tmpdir.base() == base


def test_a_program_works_where_no_folder_can_be_created(base: Path, tmp_path: Path) -> None:
    code = "from engineroom.kit import tmpdir; tmpdir.base = lambda: tmpdir.Path('/nowhere'); tmpdir.own_folder()"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_has_a_folder_of_its_own(number: signal.Signals, base: Path) -> None:
    code = (
        "import os, time; from engineroom.kit.command import run\n"
        "run(lambda: (print(os.environ['TMPDIR'], flush=True), time.sleep(60)))"
    )
    line = [sys.executable, "-c", code]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ) as owner:
        folder = Path(owner.stdout.readline().strip())
        assert folder.parent == base
        owner.send_signal(number)
        owner.wait(60)
    assert tmpdir.remove_abandoned() == ([folder] if number == signal.SIGKILL else [])
    assert list(base.iterdir()) == []
