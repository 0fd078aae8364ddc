"""Times of lessons and exercises: what is counted, and the tables that are written from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.kit.record import Record
from tools.author.report import CellRun, LessonRun
from tools.timing.lessons import (
    GUIDE,
    README,
    TimingError,
    exercise_seconds,
    exercise_table,
    table,
    write_table,
)


def cell(number: int, seconds: float | None, *passed: str) -> CellRun:
    return CellRun(number=number, title="x", result="ok", seconds=seconds, passed=list(passed))


def record(samples: dict[str, list[float]]) -> Record:
    return Record.measured(name="times", what="Time", unit="s", samples=samples)


def test_an_exercise_has_the_time_of_the_cells_since_the_previous_check() -> None:
    cells = [
        cell(1, 2.0),
        cell(2, None),
        cell(3, 0.5, "00.card"),
        cell(4, 1.0),
        cell(5, 1.25, "00.weights"),
        cell(6, 9.0),
    ]
    lesson = LessonRun(name="00_preflight", title="x", seconds=14, cells=cells)
    assert exercise_seconds(lesson) == {"00.card": 2.5, "00.weights": 2.25}


def test_tables_name_steps_exercises_and_the_machine() -> None:
    steps = table(record({"set-up": [78.54], "00_preflight": [11.9]}))
    assert "| set-up, first time, empty package cache | 78.5 s |" in steps
    assert "| lesson 00_preflight, all cells | 11.9 s |" in steps
    exercises = exercise_table(record({"00.card": [2.5], "99.gone": [1.0]}))
    assert "| 00.card | Read the machine card |" in exercises and "| 2.5 s |" in exercises
    assert "99.gone" not in exercises and "cores, 20" in exercises


def test_only_the_text_between_the_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- timings: x -->\nold\n<!-- end of timings -->\nafter\n")
    assert write_table(page, "new\n") and not write_table(page, "new\n")
    assert page.read_text() == "before\n<!-- timings: x -->\nnew\n<!-- end of timings -->\nafter\n"
    page.write_text("no markers")
    with pytest.raises(TimingError, match="no '<!-- timings"):
        write_table(page, "new\n")


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_both_pages_have_the_markers(page: Path, tmp_path: Path) -> None:
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    assert write_table(copy, "| x |\n") and "| x |" in copy.read_text()
