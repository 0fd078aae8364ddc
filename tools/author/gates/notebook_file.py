"""A notebook under the gates, and a problem found in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

ALLOWABLE = {"fallback-text", "long-cell", "machine-path", "stderr", "swallowed-error"}
ALLOW = re.compile(r"(?:#|<!--)\s*allow ([\w-]+):[ \t]*(\S.*)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Problem:
    """One problem; ``cell`` counts all cells of the file from 1, 0 means the file."""

    file: str
    cell: int
    rule: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}, cell {self.cell}" if self.cell else self.file
        return f"{where}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Book:
    """A notebook, where it lies, and the repository it lies in."""

    file: str
    notebook: NotebookNode
    root: Path

    @classmethod
    def read(cls, path: Path, root: Path) -> Book:
        return cls(str(path.relative_to(root)), nbformat.read(path, as_version=4), root)

    def cells(self, kind: str) -> Iterator[tuple[int, NotebookNode]]:
        """The cells of one kind, each with its number from 1."""
        return ((n, cell) for n, cell in enumerate(self.notebook.cells, 1) if cell.cell_type == kind)

    def problem(self, cell: int, rule: str, message: str) -> list[Problem]:
        """The problem in a list, or an empty list where the cell lifts the rule."""
        lifted = cell and rule in ALLOWABLE and rule in allowed(self.notebook.cells[cell - 1].source)
        return [] if lifted else [Problem(self.file, cell, rule, message)]


Rule = Callable[[Book], list[Problem]]


def allowed(source: str) -> set[str]:
    """The rules that this cell lifts, each with a reason."""
    return {match[1] for match in ALLOW.finditer(source)}


@cache
def tree(source: str) -> ast.Module:
    """A code cell's syntax tree, magics turned into calls of get_ipython(). Raises SyntaxError."""
    return ast.parse(TransformerManager().transform_cell(source))


def called(node: ast.AST) -> str:
    """The dotted name that a call calls, without arguments: ``get_ipython.system``; "" for anything else."""
    if isinstance(node, ast.Call):
        return called(node.func) if not isinstance(node.func, ast.Name) else node.func.id
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def output_text(output: NotebookNode) -> str:
    """What a reader reads of an output: stream text, plain text and HTML without colours."""
    if output.output_type == "stream":
        return ANSI.sub("", output.text)
    if output.output_type == "error":
        return ANSI.sub("", "\n".join(output.traceback))
    kinds = ("text/plain", "text/html", "text/markdown")
    return ANSI.sub("", "\n".join(str(output.data[kind]) for kind in kinds if kind in output.data))
