from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.kit import check, course
from tests.engineroom.kit.conftest import data_home

__all__ = ["data_home"]
CHECKS = Path(__file__).with_name("practice_checks.py")


@pytest.fixture
def practice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two lessons whose checks lie in a folder ``practice`` inside tmp_path; returns their file."""
    folder = tmp_path / "practice"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "checks.py").write_text(CHECKS.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(course, "_exercises", {})
    # an author's folder counts as the course's own code, as labs/ does
    monkeypatch.setattr(check, "OURS", (*check.OURS, str(folder)))
    lessons = [
        course.Lesson(1, "01_a", "A", "?", "practice", 1, 1),
        course.Lesson(2, "02_b", "B", "?", "practice", 1, 1),
        course.Lesson(3, "03_c", "C", "?", "no_such_lab", 1, 1),
    ]
    monkeypatch.setattr(course, "LESSONS", lessons)
    yield folder / "checks.py"
    for module in ("practice", "practice.checks"):
        sys.modules.pop(module, None)
