"""A notebook under the gates, and a violation found in it."""

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
class Violation:
    """A rule that a file breaks. ``cell`` counts all cells of the file from 1; 0 stands for the whole file."""

    file: str
    cell: int
    rule: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}, cell {self.cell}" if self.cell else self.file
        return f"{where}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class NotebookFile:
    """A notebook, its path below the repository, and the repository's folder."""

    path: str
    notebook: NotebookNode
    root: Path

    @classmethod
    def read(cls, path: Path, root: Path) -> NotebookFile:
        return cls(str(path.relative_to(root)), nbformat.read(path, as_version=4), root)

    def cells(self, kind: str) -> Iterator[tuple[int, NotebookNode]]:
        """Yield the cells of one kind, each with its number from 1."""
        numbered = enumerate(self.notebook.cells, 1)
        return ((number, cell) for number, cell in numbered if cell.cell_type == kind)

    def violation(self, cell: int, rule: str, message: str) -> list[Violation]:
        """Return the violation in a list, or an empty list where the cell lifts the rule."""
        lifted = cell and rule in ALLOWABLE and rule in allowed(self.notebook.cells[cell - 1].source)
        return [] if lifted else [Violation(self.path, cell, rule, message)]


GateRule = Callable[[NotebookFile], list[Violation]]


def allowed(source: str) -> set[str]:
    """Return the rules that this cell lifts, each with a reason."""
    return {match[1] for match in ALLOW.finditer(source)}


@cache
def tree(source: str) -> ast.Module:
    """Parse a code cell; magics become calls of get_ipython(). Raises SyntaxError."""
    return ast.parse(TransformerManager().transform_cell(source))


def called(node: ast.AST) -> str:
    """Return the dotted name of the function that a call calls, e.g. ``get_ipython.system``; "" for anything else."""
    if isinstance(node, ast.Call):
        return called(node.func) if not isinstance(node.func, ast.Name) else node.func.id
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def output_text(output: NotebookNode) -> str:
    """Return an output's text without colours: of a stream, a traceback, or of text/plain, HTML and Markdown."""
    if output.output_type == "stream":
        return ANSI.sub("", output.text)
    if output.output_type == "error":
        return ANSI.sub("", "\n".join(output.traceback))
    kinds = ("text/plain", "text/html", "text/markdown")
    return ANSI.sub("", "\n".join(str(output.data[kind]) for kind in kinds if kind in output.data))
