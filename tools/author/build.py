"""Make the notebooks from the sources, or tell which of them are out of step."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools.author.execute import Place, execute, place
from tools.author.files import ROOT, lesson_sources, write_whole
from tools.author.source import METADATA, Lesson, dumps, read


@dataclass
class BuildReport:
    """What ``build`` wrote, and what is wrong (one line or diff each)."""

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
    """Write ``notebooks/NN_name.ipynb``, and with ``execute`` run and write ``solutions/NN_name.ipynb`` too.

    ``check`` writes nothing: learner notebooks must be what would be written, byte for byte, executed ones
    must hold the source's cells. ``names`` picks lessons ("01" or "01_serve_with_vllm"). A lesson that
    fails while it runs is a problem in the report and leaves its file as it was. Raises SourceError for a
    wrong source, FileNotFoundError for an unknown lesson.
    """
    lessons = [read(path) for path in lesson_sources(list(names), root)]
    report = BuildReport()
    if check:
        for lesson in lessons:
            report.problems += _stale(lesson, root)
        report.problems += [] if names else _orphans(lessons, root)
        return report
    for lesson in lessons:
        _put(learner_path(lesson, root), lesson.learner(), report, root)
    for lesson in lessons if execute else ():
        with place() as here:
            _execute(lesson, here, report, root)
    return report


def learner_path(lesson: Lesson, root: Path = ROOT) -> Path:
    return root / "notebooks" / f"{lesson.path.stem}.ipynb"


def executed_path(lesson: Lesson, root: Path = ROOT) -> Path:
    return root / "solutions" / f"{lesson.path.stem}.ipynb"


def _put(path: Path, notebook: NotebookNode, report: BuildReport, root: Path) -> None:
    if write_whole(path, dumps(notebook)):
        report.written.append(path.relative_to(root))


def _execute(lesson: Lesson, here: Place, report: BuildReport, root: Path) -> None:
    try:
        notebook = execute(lesson.solution(), here)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report.problems.append(f"{lesson.path.name} did not run to its end; nothing was written.\n{error}")
        return
    notebook.metadata.update(METADATA)
    _put(executed_path(lesson, root), notebook, report, root)


def _stale(lesson: Lesson, root: Path) -> list[str]:
    number = lesson.path.stem.split("_")[0]
    problems = []
    path = learner_path(lesson, root)
    wanted = dumps(lesson.learner())
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    if found != wanted:
        why = _difference(found, wanted) if found else "  it is missing"
        problems.append(f"{path.relative_to(root)} is out of step; run: engineroom build {number}\n{why}")
    path = executed_path(lesson, root)
    wanted = _sources(lesson.solution())
    found = _sources(nbformat.read(path, as_version=4)) if path.is_file() else ""
    if found != wanted:
        why = _difference(found, wanted) if found else "  it is missing"
        command = f"engineroom build {number} --execute"
        problems.append(f"{path.relative_to(root)} is out of step; run: {command}\n{why}")
    return problems


def _sources(notebook: NotebookNode) -> str:
    cells = (f"[{cell.cell_type} {cell.metadata.get('tags', [])}]\n{cell.source}" for cell in notebook.cells)
    return "\n\n".join(cells)


def _difference(found: str, wanted: str, most: int = 12) -> str:
    lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), "file", "source", n=0, lineterm="")
    changed = [line for line in lines if not line.startswith(("---", "+++"))]
    more = [f"  … and {len(changed) - most} more lines"] if len(changed) > most else []
    return "\n".join([f"  {line[:100]}" for line in changed[:most]] + more)


def _orphans(lessons: list[Lesson], root: Path) -> list[str]:
    known = {lesson.path.stem for lesson in lessons}
    files = [*(root / "notebooks").glob("*.ipynb"), *(root / "solutions").glob("*.ipynb")]
    return [f"{p.relative_to(root)} has no source; delete it" for p in sorted(files) if p.stem not in known]
