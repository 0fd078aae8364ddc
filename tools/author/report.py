"""The report of a run: for each cell of each lesson what ran, where, how long it took and the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, computed_field

from engineroom.kit.files import make_folder, write_atomic
from engineroom.kit.machine import Machine
from engineroom.kit.record import short_commit

CellResult = Literal["ok", "failed", "not run"]


class CellRun(BaseModel):
    """The run of one code cell. ``number`` counts all cells of the notebook from 1; ``seconds`` is wall-clock time."""

    number: int
    title: str
    result: CellResult
    seconds: float | None = None
    passed: list[str] = []
    error: str | None = None


class LessonRun(BaseModel):
    """The run of one lesson: its code cells in order."""

    name: str
    title: str
    seconds: float
    cells: list[CellRun]
    error: str | None = None

    @computed_field
    @property
    def ok(self) -> bool:
        return self.error is None and bool(self.cells) and all(cell.result == "ok" for cell in self.cells)

    @property
    def slowest(self) -> float:
        return max((cell.seconds or 0 for cell in self.cells), default=0) or 1


class RunReport(BaseModel):
    """A run of lessons on ``machine``. ``parameters`` were passed to each lesson that has them."""

    started: str
    seconds: float = 0
    commit: str | None = None
    machine: Machine
    parameters: dict[str, Any]
    lessons: list[LessonRun] = []

    def count(self, result: CellResult) -> int:
        return sum(cell.result == result for lesson in self.lessons for cell in lesson.cells)

    @computed_field
    @property
    def counts(self) -> dict[str, int]:
        cells = {f"cells {result}": self.count(result) for result in ("ok", "failed", "not run")}
        passed = sum(len(cell.passed) for lesson in self.lessons for cell in lesson.cells)
        return {"lessons ok": sum(lesson.ok for lesson in self.lessons), **cells, "checks passed": passed}

    @computed_field
    @property
    def ok(self) -> bool:
        """True when there was at least one lesson and every cell of every lesson ran without an error."""
        return bool(self.lessons) and all(lesson.ok for lesson in self.lessons)

    def __str__(self) -> str:
        rows = [
            f"{'ok    ' if lesson.ok else 'FAILED'}  {lesson.name}  {lesson.seconds:.1f} s"
            for lesson in self.lessons
        ]
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return "\n".join([*rows, counts if self.lessons else "nothing ran: that is a failure"])

    def save(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.html``, each completely or not at all."""
        make_folder(folder)
        write_atomic(folder / "report.json", self.model_dump_json(indent=1) + "\n")
        write_atomic(folder / "report.html", self.html())

    def html(self) -> str:
        """Return a page that needs no other file."""
        loader = jinja2.FileSystemLoader(Path(__file__).parent)
        environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
        return environment.get_template("report.html.j2").render(report=self, short_commit=short_commit)
