"""Run every lesson's solution in course order and report each cell."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from engineroom.kit.machine import machine
from engineroom.kit.record import commit
from tools.author.execute import CELL_TIMEOUT, Place, place
from tools.author.files import ROOT, lesson_sources
from tools.author.gates.book import output_text
from tools.author.report import CellRun, LessonRun, RunReport
from tools.author.source import Lesson, read

ERROR_MARK = "papermill-error-cell-tag"


def run(
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    out: Path = ROOT / "out",
    timeout: int = CELL_TIMEOUT,
    root: Path = ROOT,
) -> RunReport:
    """Execute the solutions by papermill; write ``report.html``, ``report.json``, ``run/*.ipynb`` in ``out``.

    ``parameters`` go to each lesson whose cell tagged ``parameters`` sets them; ``timeout`` is seconds
    a cell. A lesson that fails does not stop the others; the report is written after each. ``report.ok`` is
    false when anything failed or nothing ran. Raises FileNotFoundError for an unknown lesson,
    SourceError for a wrong source, ValueError for a parameter that no lesson has.
    """
    lessons = [read(path) for path in lesson_sources(list(names), root)]
    given = dict(parameters or {})
    _known(given, lessons)
    report = RunReport(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine(),
        parameters=given,
    )
    start = time.monotonic()
    for lesson in lessons:
        with place() as here:
            report.lessons.append(_run(lesson, given, here, out / "run", timeout))
        report.seconds = round(time.monotonic() - start, 1)
        report.save(out)
    return report


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """``["budget=10", "model=course"]`` as a dict; a value is JSON where it can be, else text.

    Raises ValueError for a pair without ``=``.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"{pair!r} is not a parameter: write name=value")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def parameter_names(lesson: Lesson) -> set[str]:
    """The names that the lesson's ``parameters`` cell assigns."""
    cells = [cell for cell in lesson.solution().cells if "parameters" in cell.metadata.get("tags", [])]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _known(given: Mapping[str, Any], lessons: Sequence[Lesson]) -> None:
    known = {name for lesson in lessons for name in parameter_names(lesson)}
    if unknown := sorted(set(given) - known):
        have = ", ".join(sorted(known)) or "none"
        raise ValueError(f"no lesson has a parameter {', '.join(unknown)}; there are: {have}")


def _run(lesson: Lesson, given: Mapping[str, Any], here: Place, out: Path, timeout: int) -> LessonRun:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{lesson.path.stem}.ipynb"
    path.unlink(missing_ok=True)
    names = parameter_names(lesson)
    start, error = time.monotonic(), None
    try:
        papermill.execute_notebook(
            lesson.solution(),
            path,
            parameters={name: value for name, value in given.items() if name in names},
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=timeout,
            cwd=here.work,
        )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = _why(failure)
    seconds = round(time.monotonic() - start, 1)
    notebook = here.scrub(nbformat.read(path, as_version=4))
    cells = [cell for cell in notebook.cells if ERROR_MARK not in cell.metadata.get("tags", [])]
    runs = [_cell(number, cell) for number, cell in enumerate(cells, 1) if cell.cell_type == "code"]
    if error and (started := [run for run in runs if run.result != "not run"]):
        started[-1].result = "failed"  # papermill calls it "completed" when it timed out
        started[-1].error = started[-1].error or error
    return LessonRun(name=lesson.path.stem, title=_title(cells), seconds=seconds, cells=runs, error=error)


def _cell(number: int, cell: NotebookNode) -> CellRun:
    timing = cell.metadata.papermill
    texts = [output_text(output) for output in cell.outputs]
    errors = [output_text(output) for output in cell.outputs if output.output_type == "error"]
    return CellRun(
        number=number,
        title=next((line for line in cell.source.splitlines() if line.strip()), ""),
        result="ok" if timing.start_time else "not run",
        seconds=timing.duration,
        passed=[text.split()[1] for text in texts if text.startswith("PASSED ")],
        error=errors[-1].lstrip("-\n") if errors else None,
    )


def _title(cells: Sequence[NotebookNode]) -> str:
    lines = (line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def _why(failure: Exception) -> str:
    """The line that says it: the first of a timeout or a dead kernel, the last of a traceback."""
    lines = [line for line in str(failure).splitlines() if line.strip(" -")]
    said = lines[-1 if isinstance(failure, PapermillExecutionError) else 0] if lines else ""
    return f"{type(failure).__name__}: {said}"
