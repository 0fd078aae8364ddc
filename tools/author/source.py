"""A lesson's source (jupytext percent format) and the notebooks made from it.

A lesson is written once, in ``solutions/NN_name.py``. ``solution()`` is the notebook to execute,
``learner()`` the one to hand out. Both are the same bytes each time.
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

from tools.author.regions import LOOKALIKE, Parts, Region, SourceError, split

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
class Cell:
    """One cell: ``kind`` is ``markdown`` or ``code``, ``line`` its first source line in the file, 1-based."""

    kind: str
    parts: Parts
    tags: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Lesson:
    """A lesson's source as it was read."""

    path: Path
    cells: tuple[Cell, ...]

    def solution(self) -> NotebookNode:
        """The notebook to execute: markers and starters dropped. No outputs."""
        return self._notebook(Region.solved, lambda cell: True)

    def learner(self) -> NotebookNode:
        """The notebook to hand out: no solution, no instructor's cell, no nbval marker. No outputs."""
        return self._notebook(Region.to_write, lambda cell: INSTRUCTOR not in cell.tags, for_learner=True)

    def _notebook(
        self,
        region_lines: Callable[[Region], list[str]],
        keep: Callable[[Cell], bool],
        for_learner: bool = False,
    ) -> NotebookNode:
        notebook = new_notebook(metadata=METADATA)
        seen: Counter[str] = Counter()
        for cell in filter(keep, self.cells):
            source = _text(cell, region_lines, for_learner)
            if cell.kind == "code":
                _compiles(source, cell, self.path)
            tags = [t for t in cell.tags if not (for_learner and t.startswith("nbval-"))]
            new = new_code_cell if cell.kind == "code" else new_markdown_cell
            metadata = {"tags": tags} if tags else {}
            notebook.cells.append(new(source, id=_cell_id(cell.kind, source, seen), metadata=metadata))
        nbformat.validate(notebook)
        return notebook


def read(path: Path) -> Lesson:
    """Read a lesson.

    Raises FileNotFoundError, and SourceError (naming file and line) for anything but markdown and code cells,
    for wrong regions, a region in markdown, an instructor's code cell, or code that does not compile, in
    the solution as in the learner's version.
    """
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(
        text, fmt={"extension": ".py", "format_name": "percent", "comment_magics": False}
    )
    starts = _starts(text, len(notebook.cells), path)
    cells = tuple(_cell(node, line, path) for node, line in zip(notebook.cells, starts, strict=True))
    lesson = Lesson(path, cells)
    lesson.solution()
    lesson.learner()
    return lesson


def dumps(notebook: NotebookNode) -> str:
    """The notebook file's text: the same bytes for the same notebook."""
    return nbformat.writes(notebook, version=4) + "\n"


def _starts(text: str, count: int, path: Path) -> list[int]:
    lines = text.splitlines()
    starts = [_first_line(lines, i) for i, line in enumerate(lines) if CELL_START.match(line)]
    if len(starts) != count:
        raise SourceError(path, 1, "each cell must begin with a line '# %%' or '# %% [markdown]'.")
    return starts


def _first_line(lines: list[str], marker: int) -> int:
    """The 1-based number of the first line that is not blank after ``lines[marker]``."""
    after = (number for number, line in enumerate(lines[marker + 1 :], marker + 2) if line.strip())
    return next(after, marker + 2)


def _cell(node: NotebookNode, line: int, path: Path) -> Cell:
    tags = tuple(node.metadata.get("tags", ()))
    if node.cell_type == "code":
        if INSTRUCTOR in tags:
            raise SourceError(path, line - 1, "only a markdown cell may be tagged 'instructor'.")
        return Cell("code", split(node.source, path, line), tags, line)
    if node.cell_type != "markdown":
        raise SourceError(path, line - 1, f"a {node.cell_type} cell; write code or [markdown].")
    for number, text in enumerate(node.source.splitlines(), line):
        if LOOKALIKE.fullmatch(text):
            raise SourceError(path, number, "a solution region belongs into a code cell, not into markdown.")
    return Cell("markdown", list(node.source.splitlines()), tags, line)


def _text(cell: Cell, region_lines: Callable[[Region], list[str]], for_learner: bool) -> str:
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


def _compiles(source: str, cell: Cell, path: Path) -> None:
    try:
        compile_cell(source)
    except SyntaxError as error:
        regions = [part for part in cell.parts if isinstance(part, Region)]
        line = regions[0].line if regions else cell.line + (error.lineno or 1) - 1
        what = f"{error.msg}, in {(error.text or '').strip()!r}"
        raise SourceError(path, line, f"this cell does not compile ({what}):\n{source}") from error


def _cell_id(kind: str, source: str, seen: Counter[str]) -> str:
    """From the content alone, so that a new cell does not rename those after it; twins are numbered."""
    digest = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:8]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
