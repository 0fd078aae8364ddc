"""Run the lessons' solutions in course order and report every cell."""

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

from engineroom.kit import children
from engineroom.kit.errors import UserError
from engineroom.kit.files import require_writable
from engineroom.kit.machine import machine
from engineroom.kit.record import commit
from tools.author.execute import CELL_TIMEOUT, Workspace, workspace
from tools.author.files import ROOT, lesson_sources
from tools.author.gates.notebook_file import output_text
from tools.author.repeat import repeated, run_name
from tools.author.report import CellRun, LessonRun, RunReport
from tools.author.source import LessonSource, read
from tools.kernel import IpcKernelManager

ERROR_MARK = "papermill-error-cell-tag"


class ParameterError(UserError, ValueError):
    """A parameter that is malformed or that no lesson has; the message lists those that exist."""


def run(
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    out: Path = ROOT / "out",
    timeout: int = CELL_TIMEOUT,
    repeat: bool = False,
    root: Path = ROOT,
) -> RunReport:
    """Execute the solutions with papermill; write ``report.html``, ``report.json`` and ``run/*.ipynb`` to ``out``.

    ``parameters`` are passed to each lesson whose cell with the tag ``parameters`` sets them. ``timeout`` is in seconds
    for each cell. ``repeat`` runs each cell twice in a row, and then all of them again in the same kernel. A lesson
    that fails does not stop the others; the report is written after each. ``report.ok`` is
    false when anything failed or nothing ran. Raises LessonNotFound for an unknown lesson, SourceError for an invalid
    source and ParameterError for a parameter that no lesson has.
    """
    lessons = [read(path) for path in lesson_sources(list(names), root)]
    values = dict(parameters or {})
    require_writable(out)
    _check_parameters(values, lessons)
    report = RunReport(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine(),
        parameters=values,
    )
    start = time.monotonic()
    for lesson in lessons:
        with workspace() as folders:
            report.lessons.append(_run(lesson, values, folders, out / "run", timeout, repeat))
        report.seconds = round(time.monotonic() - start, 1)
        report.save(out)
    return report


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``["budget=10", "model=course"]`` into a dict. A value is parsed as JSON; if that fails, it is text.

    Raises ParameterError for a pair without ``=``.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ParameterError(f"{pair!r} is not a parameter: write name=value")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def parameter_names(lesson: LessonSource) -> set[str]:
    """Return the names that the lesson's ``parameters`` cell assigns."""
    cells = [cell for cell in lesson.solution().cells if "parameters" in cell.metadata.get("tags", [])]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _check_parameters(values: Mapping[str, Any], lessons: Sequence[LessonSource]) -> None:
    names = {name for lesson in lessons for name in parameter_names(lesson)}
    if unknown := sorted(set(values) - names):
        existing = ", ".join(sorted(names)) or "none"
        raise ParameterError(f"no lesson has a parameter {', '.join(unknown)}; there are: {existing}")


def _run(
    lesson: LessonSource, values: Mapping[str, Any], folders: Workspace, out: Path, timeout: int, repeat: bool
) -> LessonRun:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{lesson.path.stem}.ipynb"
    path.unlink(missing_ok=True)
    names = parameter_names(lesson)
    start = time.monotonic()
    error = None
    try:
        papermill.execute_notebook(
            repeated(lesson.solution()) if repeat else lesson.solution(),
            path,
            parameters={name: value for name, value in values.items() if name in names},
            kernel_name="python3",
            kernel_manager_class=IpcKernelManager,
            progress_bar=False,
            execution_timeout=timeout,
            cwd=folders.work,
        )
    except (PapermillExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = _summary(failure)
    except (KeyboardInterrupt, SystemExit):
        children.end_all()  # the kernel, before its work folder is removed
        raise
    seconds = round(time.monotonic() - start, 1)
    notebook = folders.scrub(nbformat.read(path, as_version=4))
    return _lesson_run(lesson.path.stem, notebook, seconds, error)


def _lesson_run(name: str, notebook: NotebookNode, seconds: float, error: str | None) -> LessonRun:
    cells = [cell for cell in notebook.cells if ERROR_MARK not in cell.metadata.get("tags", [])]
    runs = [_cell_run(number, cell) for number, cell in enumerate(cells, 1) if cell.cell_type == "code"]
    started = [run for run in runs if run.result != "not run"]
    if error and started:
        started[-1].result = "failed"  # papermill calls a cell "completed" when it timed out
        started[-1].error = started[-1].error or error
    return LessonRun(name=name, title=_title(cells), seconds=seconds, cells=runs, error=error)


def _cell_run(number: int, cell: NotebookNode) -> CellRun:
    timing = cell.metadata.papermill
    texts = [output_text(output) for output in cell.outputs]
    errors = [output_text(output) for output in cell.outputs if output.output_type == "error"]
    first_line = next((line for line in cell.source.splitlines() if line.strip()), "")
    return CellRun(
        number=number,
        title=f"({run_name(cell)}) {first_line}" if run_name(cell) else first_line,
        result="ok" if timing.start_time else "not run",
        seconds=timing.duration,
        passed=[text.split()[1] for text in texts if text.startswith("PASSED ")],
        error=errors[-1].lstrip("-\n") if errors else None,
    )


def _title(cells: Sequence[NotebookNode]) -> str:
    lines = (line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def _summary(failure: Exception) -> str:
    """Return the line that tells most: the first of a timeout or a dead kernel, the last of a traceback."""
    lines = [line for line in str(failure).splitlines() if line.strip(" -")] or [""]
    line = lines[-1] if isinstance(failure, PapermillExecutionError) else lines[0]
    return f"{type(failure).__name__}: {line}"
