from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.kit import course, learner
from tests.engineroom.kit.conftest import data_home

__all__ = ["data_home"]
HERE = Path(__file__).parent


@pytest.fixture
def practice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create a package ``practice`` in place of ``labs``, with checks for two of three lessons; return its folder."""
    rooms = tmp_path / "practice"
    for room in ("a", "b"):
        (rooms / room).mkdir(parents=True)
        shutil.copy(HERE / f"practice_{room}.py", rooms / room / "checks.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(course, "ROOMS", "practice")
    monkeypatch.setattr(course, "_exercises", {})
    # an author's folder counts as the course's own code, as labs/ does
    monkeypatch.setattr(learner, "COURSE_CODE", (*learner.COURSE_CODE, str(rooms)))
    lessons = [
        course.Lesson(number, f"0{number}_{room}", room, "?", 1, 1) for number, room in enumerate("abc", 1)
    ]
    monkeypatch.setattr(course, "LESSONS", lessons)
    yield rooms
    for module in [name for name in sys.modules if name.partition(".")[0] == "practice"]:
        del sys.modules[module]
