"""A lesson's source (jupytext percent format) and the notebooks that are built from it.

A lesson is written once, in ``solutions/NN_name.py``. ``solution()`` is the notebook to execute,
``learner()`` the notebook to hand out. The same source gives the same bytes.
https://jupytext.readthedocs.io/en/latest/formats-scripts.html#the-percent-format
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools.author.regions import LOOKALIKE, CellParts, Region, SourceError, split

# Only these are magics. jupytext's own rule would also turn the comment "# cat the pieces" into a command.
MAGICS = ("matplotlib", "time", "timeit")
MAGIC_COMMENT = re.compile(rf"(?m)^# (?=%(?:{'|'.join(MAGICS)})(?: |$))")
CELL_START = re.compile(r"# %%(?!\S)")
INSTRUCTOR = "instructor"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class SourceCell:
    """One cell. ``kind`` is ``markdown`` or ``code``; ``line`` is its first source line in the file, 1-based."""

    kind: str
    parts: CellParts
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class LessonSource:
    """A lesson's source: its file and its cells."""

    path: Path
    cells: tuple[SourceCell, ...]

    def solution(self) -> NotebookNode:
        """Return the notebook to execute, without markers, starters and outputs."""
        return self._notebook(Region.solved, lambda cell: True)

    def learner(self) -> NotebookNode:
        """Return the notebook to hand out, without solutions, instructors' cells, nbval markers and outputs."""
        return self._notebook(Region.to_write, lambda cell: INSTRUCTOR not in cell.tags, for_learner=True)

    def _notebook(
        self,
        region_lines: Callable[[Region], list[str]],
        keep: Callable[[SourceCell], bool],
        for_learner: bool = False,
    ) -> NotebookNode:
        notebook = new_notebook(metadata=METADATA)
        id_counts: Counter[str] = Counter()
        for cell in filter(keep, self.cells):
            source = _text(cell, region_lines, for_learner)
            if cell.kind == "code":
                _check_syntax(source, cell, self.path)
            tags = [tag for tag in cell.tags if not (for_learner and tag.startswith("nbval-"))]
            new_cell = new_code_cell if cell.kind == "code" else new_markdown_cell
            metadata = {"tags": tags} if tags else {}
            notebook.cells.append(
                new_cell(source, id=_cell_id(cell.kind, source, id_counts), metadata=metadata)
            )
        nbformat.validate(notebook)
        return notebook


def read(path: Path) -> LessonSource:
    """Read a lesson.

    Raises FileNotFoundError. Raises SourceError, which names file and line, for cells that are neither markdown nor
    code, for wrong regions, a region in markdown, a code cell for instructors, and for code that does not compile in
    the solution or in the learner's version.
    """
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(
        text, fmt={"extension": ".py", "format_name": "percent", "comment_magics": False}
    )
    starts = _starts(text, len(notebook.cells), path)
    cells = tuple(_cell(node, line, path) for node, line in zip(notebook.cells, starts, strict=True))
    lesson = LessonSource(path, cells)
    lesson.solution()
    lesson.learner()
    return lesson


def dumps(notebook: NotebookNode) -> str:
    """Return the text of the notebook's file: the same bytes for the same notebook."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"


def _starts(text: str, count: int, path: Path) -> list[int]:
    lines = text.splitlines()
    starts = [_first_line(lines, i) for i, line in enumerate(lines) if CELL_START.match(line)]
    if len(starts) != count:
        raise SourceError(path, 1, "each cell must begin with a line '# %%' or '# %% [markdown]'.")
    return starts


def _first_line(lines: list[str], marker: int) -> int:
    """Return the 1-based number of the first line that is not blank after ``lines[marker]``."""
    numbers = (number for number, line in enumerate(lines[marker + 1 :], marker + 2) if line.strip())
    return next(numbers, marker + 2)


def _cell(node: NotebookNode, line: int, path: Path) -> SourceCell:
    tags = tuple(node.metadata.get("tags", ()))
    if node.cell_type == "code":
        if INSTRUCTOR in tags:
            raise SourceError(path, line - 1, "only a markdown cell may be tagged 'instructor'.")
        return SourceCell("code", split(node.source, path, line), tags, line)
    if node.cell_type != "markdown":
        raise SourceError(path, line - 1, f"a {node.cell_type} cell; write code or [markdown].")
    for number, text in enumerate(node.source.splitlines(), line):
        if LOOKALIKE.fullmatch(text):
            raise SourceError(path, number, "a solution region belongs into a code cell, not into markdown.")
    return SourceCell("markdown", list(node.source.splitlines()), tags, line)


def _text(cell: SourceCell, region_lines: Callable[[Region], list[str]], for_learner: bool) -> str:
    lines: list[str] = []
    for part in cell.parts:
        lines.extend([part] if isinstance(part, str) else region_lines(part))
    if for_learner:
        lines = [line for line in lines if not line.lstrip("# ").startswith("NBVAL_")]
    text = "\n".join(lines).strip("\n")
    return MAGIC_COMMENT.sub("", text) if cell.kind == "code" else text


def compile_cell(source: str) -> None:
    """Compile a notebook cell (magics and top-level await allowed). Raises SyntaxError."""
    python = TransformerManager().transform_cell(source)
    compile(python, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def _check_syntax(source: str, cell: SourceCell, path: Path) -> None:
    try:
        compile_cell(source)
    except SyntaxError as error:
        regions = [part for part in cell.parts if isinstance(part, Region)]
        line = regions[0].line if regions else cell.line + (error.lineno or 1) - 1
        reason = f"{error.msg}, in {(error.text or '').strip()!r}"
        raise SourceError(path, line, f"this cell does not compile ({reason}):\n{source}") from error


def _cell_id(kind: str, source: str, id_counts: Counter[str]) -> str:
    """Derive the id from the content, so that a new cell does not rename those after it; equal cells are numbered."""
    digest = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:8]
    id_counts[digest] += 1
    return digest if id_counts[digest] == 1 else f"{digest}-{id_counts[digest]}"
