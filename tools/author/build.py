"""Build the notebooks from their sources, or say which notebooks are out of step."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools.author.execute import Workspace, execute, workspace
from tools.author.files import ROOT, lesson_sources, write_whole
from tools.author.source import METADATA, LessonSource, dumps, read


@dataclass
class BuildReport:
    """The files that ``build`` wrote, and a line or a diff for each problem."""

    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"wrote {path}" for path in self.written] + self.problems
        return "\n".join(lines) if lines else "all notebooks are in step with their sources"


def build(
    names: Sequence[str] = (), *, execute: bool = False, check: bool = False, root: Path = ROOT
) -> BuildReport:
    """Write ``notebooks/NN_name.ipynb``; with ``execute`` also run the lesson and write ``solutions/NN_name.ipynb``.

    Without ``execute``, an executed notebook with the same code as the source gets its prose and keeps the outputs.

    ``check`` writes nothing and compares: a learner notebook must be what would be written, byte for byte, and an
    executed one must contain the source's cells. ``names`` selects lessons ("01" or "01_serve_with_vllm"). A lesson
    that fails while it runs is a problem in the report, and its file stays as it was. Raises SourceError for an invalid
    source and LessonNotFound for an unknown lesson.
    """
    lessons = [read(path) for path in lesson_sources(list(names), root)]
    report = BuildReport()
    if check:
        for lesson in lessons:
            report.problems += _stale(lesson, root)
        report.problems += [] if names else _orphans(lessons, root)
        return report
    for lesson in lessons:
        _write(learner_path(lesson, root), lesson.learner(), report, root)
        if execute:
            with workspace() as folders:
                _execute(lesson, folders, report, root)
        else:
            _update_prose(lesson, report, root)
    return report


def learner_path(lesson: LessonSource, root: Path = ROOT) -> Path:
    """Return the path of the notebook for learners."""
    return root / "notebooks" / f"{lesson.path.stem}.ipynb"


def executed_path(lesson: LessonSource, root: Path = ROOT) -> Path:
    """Return the path of the executed notebook with the solutions."""
    return root / "solutions" / f"{lesson.path.stem}.ipynb"


def _write(path: Path, notebook: NotebookNode, report: BuildReport, root: Path) -> None:
    if write_whole(path, dumps(notebook)):
        report.written.append(path.relative_to(root))


def _execute(lesson: LessonSource, folders: Workspace, report: BuildReport, root: Path) -> None:
    try:
        notebook = execute(lesson.solution(), folders)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report.problems.append(f"{lesson.path.name} did not run to its end; nothing was written.\n{error}")
        return
    notebook.metadata.update(METADATA)
    _write(executed_path(lesson, root), notebook, report, root)


def _update_prose(lesson: LessonSource, report: BuildReport, root: Path) -> None:
    """Give the executed notebook the source's prose, if no code cell has changed since it ran."""
    path = executed_path(lesson, root)
    if not path.is_file():
        return
    executed, notebook = nbformat.read(path, as_version=4), lesson.solution()
    executed_code = [cell for cell in executed.cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] != [cell.source for cell in executed_code]:
        return
    for cell, executed_cell in zip(code, executed_code, strict=True):
        cell.update(executed_cell)
    notebook.metadata.update(executed.metadata)
    _write(path, notebook, report, root)


def _stale(lesson: LessonSource, root: Path) -> list[str]:
    """Compare the two committed notebooks with the source."""
    number = lesson.path.stem.split("_")[0]
    learner = learner_path(lesson, root)
    actual = learner.read_text(encoding="utf-8") if learner.is_file() else ""
    problems = _out_of_step(learner, actual, dumps(lesson.learner()), f"engineroom lessons {number}", root)
    executed = executed_path(lesson, root)
    actual = _cells_text(nbformat.read(executed, as_version=4)) if executed.is_file() else ""
    expected = _cells_text(lesson.solution())
    return problems + _out_of_step(executed, actual, expected, f"engineroom lessons {number} --execute", root)


def _out_of_step(path: Path, actual: str, expected: str, command: str, root: Path) -> list[str]:
    if actual == expected:
        return []
    difference = _difference(actual, expected) if actual else "  it is missing"
    return [f"{path.relative_to(root)} is out of step; run: {command}\n{difference}"]


def _cells_text(notebook: NotebookNode) -> str:
    """The sources and tags of all cells as one text."""
    cells = (f"[{cell.cell_type} {cell.metadata.get('tags', [])}]\n{cell.source}" for cell in notebook.cells)
    return "\n\n".join(cells)


def _difference(actual: str, expected: str, max_lines: int = 12) -> str:
    lines = difflib.unified_diff(
        actual.splitlines(), expected.splitlines(), "file", "source", n=0, lineterm=""
    )
    changed = [f"  {line[:100]}" for line in lines if not line.startswith(("---", "+++"))]
    omitted = len(changed) - max_lines
    return "\n".join(changed[:max_lines] + ([f"  … and {omitted} more lines"] if omitted > 0 else []))


def _orphans(lessons: list[LessonSource], root: Path) -> list[str]:
    stems = {lesson.path.stem for lesson in lessons}
    files = [*(root / "notebooks").glob("*.ipynb"), *(root / "solutions").glob("*.ipynb")]
    return [
        f"{path.relative_to(root)} has no source; delete it"
        for path in sorted(files)
        if path.stem not in stems
    ]
