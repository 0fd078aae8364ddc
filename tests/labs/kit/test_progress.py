"""Progress survives two kernels at once, a failed write and a broken file; the times of attempts stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labs.kit import progress

ROOT = Path(__file__).parents[3]


def test_missing_is_empty() -> None:
    assert progress.load() == progress.Progress()
    assert progress.load().status("01.a", 1) == "open"


def test_attempts_levels_and_status() -> None:
    levels = [progress.record_attempt("01.a", 1, passed=False, mistake=mistake) for mistake in "xxyx"]
    assert levels == [0, 1, 0, 0]
    assert progress.load().status("01.a", 1) == "started"
    progress.record_attempt("01.a", 1, passed=True)
    first = progress.load().exercises["01.a"][1]
    assert first.attempts == 5 and first.passed_at.tzinfo and first.first_at <= first.passed_at
    progress.record_attempt("01.a", 1, passed=False, mistake="x")
    assert progress.load().status("01.a", 1) == "done"
    last = progress.load().exercises["01.a"][1]
    assert (last.first_at, last.passed_at) == (first.first_at, first.passed_at)


def test_new_version_of_an_exercise() -> None:
    progress.record_attempt("01.a", 1, passed=True)
    assert progress.load().status("01.a", 2) == "changed"
    progress.record_attempt("01.a", 2, passed=False, mistake="x")
    assert progress.load().status("01.a", 2) == "changed"
    progress.record_attempt("01.a", 2, passed=True)
    assert progress.load().status("01.a", 2) == "done"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"exercises": {"01.a": 3}}', "\x00\xff"])
def test_broken_file_is_kept_and_said(text: str, data_home: Path, capsys: pytest.CaptureFixture) -> None:
    data_home.mkdir()
    (data_home / "progress.json").write_text(text)
    progress.record_attempt("01.a", 1, passed=True)
    assert "could not be read" in capsys.readouterr().out
    [broken] = data_home.glob("progress.json.corrupt-*")
    assert broken.read_text() == text
    assert progress.load().status("01.a", 1) == "done"


def test_failed_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, data_home: Path) -> None:
    progress.record_attempt("01.a", 1, passed=True)
    before = (data_home / "progress.json").read_text()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            progress.record_attempt("01.a", 1, passed=False, mistake="x")
    assert (data_home / "progress.json").read_text() == before
    assert sorted(path.name for path in data_home.iterdir()) == ["progress.json", "progress.lock"]


def test_two_kernels_at_once(data_home: Path) -> None:
    code = (
        "import sys; from labs.kit import progress\n"
        "for n in range(40):\n"
        "    for name in (sys.argv[1], 'both'): progress.record_attempt(f'01.{name}', 1, passed=True)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", code, name], env=env) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    exercises = progress.load().exercises
    assert {name: entry[1].attempts for name, entry in exercises.items()} == {
        "01.a": 40,
        "01.b": 40,
        "01.both": 80,
    }


def test_an_identity_is_chosen_once_and_differs_between_learners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    progress.record_attempt("01.a", 1, passed=True)
    identity = progress.identity()
    assert identity and progress.identity() == identity == progress.load().identity
    progress.record_gain("01.b", 2.0)
    assert progress.load().identity == identity
    assert progress.load().status("01.a", 1) == "done"
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path / "another learner"))
    assert progress.identity() != identity


def test_where_nothing_can_be_written_the_identity_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(progress, "write_atomic", full)
    assert progress.identity() == ""
