"""Measure how long set-up, lessons and exercises take, and write the tables of README and instructors' guide from that.

`engineroom timing lessons` sets up a fresh clone from an empty package cache, sets it up again, and runs every lesson
as `engineroom run` does. `engineroom timing lessons --readme` only writes the tables.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.errors import UserError
from engineroom.kit.record import Record, find
from labs.kit.course import LESSONS, exercises
from tools.author.files import ROOT, write_whole
from tools.author.report import LessonRun
from tools.author.run import run

NAME, EXERCISES = "timings", "timings-exercises"
BLOCK = re.compile(r"(?s)(<!-- timings: .*? -->\n).*?(<!-- end of timings -->)")
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "instructors.md"
COMMAND = "engineroom timing lessons"
LABELS = {
    "set-up": "set-up, first time, empty package cache",
    "set-up again": "set-up, every later time",
}


class TimingError(UserError, RuntimeError):
    """A measurement that failed, or a table that cannot be written."""


def set_up_seconds() -> dict[str, list[float]]:
    """Return the seconds of bootstrap.py in a fresh clone: once with an empty cache, then three times more."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "engineroom"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = os.environ | {"UV_CACHE_DIR": str(Path(folder) / "cache")}

        def measure() -> float:
            begin = time.monotonic()
            python = [getattr(sys, "_base_executable", sys.executable), "bootstrap.py"]
            subprocess.run(python, cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - begin

        return {"set-up": [measure()], "set-up again": [measure() for _ in range(3)]}


def run_lessons() -> list[LessonRun]:
    """Run each lesson once. Raises TimingError when a lesson fails."""
    report = run()
    if not report.ok:
        raise TimingError(f"a lesson failed:\n{report}")
    return report.lessons


def exercise_seconds(lesson: LessonRun) -> dict[str, float]:
    """Return, for each exercise in order, the seconds of all cells after the previous check up to its own check."""
    seconds: dict[str, float] = {}
    waited = 0.0
    for cell in lesson.cells:
        waited += cell.seconds or 0
        for name in cell.passed:
            seconds[name] = round(waited, 2)
            waited = 0.0
    return seconds


def table(record: Record) -> str:
    """Return the README's table: each step's seconds, and where and when they were measured."""
    rows = []
    for name, summary in record.summary.items():
        label = LABELS.get(name, f"lesson {name}, all cells")
        rows.append(f"| {label} | {summary.median:.1f} s |")
    return "\n".join(["| step | time |", "|---|---|", *rows, "", _origin(record)]) + "\n"


def exercise_table(record: Record) -> str:
    """Return the guide's table: each exercise, the minutes that it is planned for, and the seconds measured."""
    measured = [
        exercise for lesson in LESSONS for exercise in exercises(lesson) if exercise.id in record.values
    ]
    rows = ["| exercise | | minutes planned | the cells before it compute |", "|---|---|---|---|"]
    for exercise in measured:
        seconds = record.summary[exercise.id].median
        rows += [f"| {exercise.id} | {exercise.title} | {exercise.minutes} | {seconds:.1f} s |"]
    return "\n".join([*rows, "", _origin(record)]) + "\n"


def _origin(record: Record) -> str:
    machine = record.machine or {}
    return f"Measured on {machine.get('cpu')}, {machine.get('cores')} cores, {record.started:%Y-%m-%d}."


def write_table(page: Path, text: str) -> bool:
    """Write a table between a page's markers; return False when it was up to date. Raises TimingError."""
    contents = page.read_text(encoding="utf-8")
    if not BLOCK.search(contents):
        markers = "'<!-- timings: … -->' and '<!-- end of timings -->'"
        raise TimingError(f"{page.name} has no {markers} around its table.")
    return write_whole(page, BLOCK.sub(lambda match: match[1] + text + match[2], contents))


def measure() -> None:
    """Measure, and save both records: they name the commit, so neither is created after the other was saved."""
    set_up = set_up_seconds()
    runs = run_lessons()
    lesson_samples = set_up | {lesson.name: [lesson.seconds] for lesson in runs}
    exercise_samples = {name: [value] for lesson in runs for name, value in exercise_seconds(lesson).items()}
    rows = [
        (NAME, "Wall-clock time of each step", lesson_samples),
        (EXERCISES, "Time of the cells from the previous check to that of each exercise", exercise_samples),
    ]
    facts = {"unit": "s", "command": COMMAND}
    records = [
        Record.measured(name=name, what=what, samples=samples, **facts) for name, what, samples in rows
    ]
    for record in records:
        record.save()


def lessons(
    readme: Annotated[
        bool, typer.Option("--readme", help="only write the tables again, from the records")
    ] = False,
) -> None:
    """Measure set-up, lessons and exercises (half an hour); write the records and the tables of README and guide."""
    if not readme:
        measure()
    for page, text in ((README, table(find(NAME))), (GUIDE, exercise_table(find(EXERCISES)))):
        print(f"{page.name} written" if write_table(page, text) else f"{page.name} is up to date")
