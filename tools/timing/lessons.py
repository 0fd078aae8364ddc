"""How long set-up and lessons take, measured, and the README's table made from that record.

`engineroom timing lessons` measures: a fresh clone, set up from an empty package cache, set up again, and every
lesson run by `engineroom run`. `engineroom timing lessons --readme` only writes the table.
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


def set_up_seconds() -> dict[str, list[float]]:
    """Seconds of bootstrap.py in a fresh clone: with an empty cache, then three times more."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "engineroom"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        environment = os.environ | {"UV_CACHE_DIR": str(Path(folder) / "cache")}

        def once() -> float:
            begin = time.monotonic()
            python = [getattr(sys, "_base_executable", sys.executable), "bootstrap.py"]
            subprocess.run(python, cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - begin

        return {"set-up": [once()], "set-up again": [once() for _ in range(3)]}


def lesson_seconds() -> dict[str, list[float]]:
    """Seconds of each lesson, kernel start included, run once. Raises RuntimeError when a lesson fails."""
    report = run()
    if not report.ok:
        raise RuntimeError(f"a lesson failed:\n{report}")
    return {lesson.name: [lesson.seconds] for lesson in report.lessons}


def table(record: Record) -> str:
    """The README's table: each step's seconds, and where and when they were measured."""
    rows = [f"| {LABELS.get(name, f'lesson {name}, all cells')} | {one.median:.1f} s |" for name, one in
            record.summary.items()]  # fmt: skip
    where = (
        f"Measured on {record.machine['cpu']}, {record.machine['cores']} cores, {record.started:%Y-%m-%d}."
    )
    return "\n".join(["| step | time |", "|---|---|", *rows, "", where]) + "\n"


def write_readme(readme: Path = ROOT / "README.md") -> bool:
    """Put the table between the README's markers; False when it was up to date. Raises ValueError without them."""
    text = readme.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise ValueError(
            f"{readme.name} has no '<!-- timings: … -->' and '<!-- end of timings -->' around its table."
        )
    made = table(find(NAME))
    return write_whole(readme, BLOCK.sub(lambda m: m[1] + made + m[2], text))


def lessons(
    readme: Annotated[
        bool, typer.Option("--readme", help="only write the table again, from the record")
    ] = False,
) -> None:
    """Measure set-up and every lesson, a quarter of an hour, and write the record and the README's table."""
    if not readme:
        samples = set_up_seconds() | lesson_seconds()
        Record.measured(
            name=NAME, what="Wall-clock time of each step", unit="s", samples=samples, command=COMMAND
        ).save()
    print("README.md written" if write_readme() else "README.md is up to date")
