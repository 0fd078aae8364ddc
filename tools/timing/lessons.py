"""Measure how long set-up and lessons take, and write the README's table from that record.

`engineroom timing lessons` sets up a fresh clone from an empty package cache, sets it up again, and runs every lesson
as `engineroom run` does. `engineroom timing lessons --readme` only writes the table.
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
from tools.author.files import ROOT, write_whole
from tools.author.run import run

NAME = "timings"
BLOCK = re.compile(r"(?s)(<!-- timings: .*? -->\n).*?(<!-- end of timings -->)")
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


def lesson_seconds() -> dict[str, list[float]]:
    """Run each lesson once; return its seconds, kernel start included. Raises TimingError when a lesson fails."""
    report = run()
    if not report.ok:
        raise TimingError(f"a lesson failed:\n{report}")
    return {lesson.name: [lesson.seconds] for lesson in report.lessons}


def table(record: Record) -> str:
    """Return the README's table: each step's seconds, and where and when they were measured."""
    rows = []
    for name, summary in record.summary.items():
        label = LABELS.get(name, f"lesson {name}, all cells")
        rows.append(f"| {label} | {summary.median:.1f} s |")
    machine = record.machine or {}
    origin = f"Measured on {machine.get('cpu')}, {machine.get('cores')} cores, {record.started:%Y-%m-%d}."
    return "\n".join(["| step | time |", "|---|---|", *rows, "", origin]) + "\n"


def write_readme(readme: Path = ROOT / "README.md") -> bool:
    """Write the table between the README's markers; return False when it was up to date. Raises TimingError."""
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        markers = "'<!-- timings: … -->' and '<!-- end of timings -->'"
        raise TimingError(f"{readme.name} has no {markers} around its table.")
    new_table = table(find(NAME))
    return write_whole(readme, BLOCK.sub(lambda match: match[1] + new_table + match[2], text))


def lessons(
    readme: Annotated[
        bool, typer.Option("--readme", help="only write the table again, from the record")
    ] = False,
) -> None:
    """Measure set-up and every lesson (a quarter of an hour) and write the record and the README's table."""
    if not readme:
        samples = set_up_seconds() | lesson_seconds()
        Record.measured(
            name=NAME, what="Wall-clock time of each step", unit="s", samples=samples, command=COMMAND
        ).save()
    print("README.md written" if write_readme() else "README.md is up to date")
