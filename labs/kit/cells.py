"""Which cell of a lesson defines a name, and which exercise that is: read from the learner's notebook."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs.kit.learner import is_unfinished

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
YOUR_CODE = "YOUR CODE"  # the mark of an exercise's cell
CHECK = re.compile(r"""\bcheck\(\s*["'](\d\d\.\w+)["']""")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One code cell: its text, the names that it defines and uses, the heading above it, the exercise it answers."""

    source: str
    names: frozenset[str]
    used_names: tuple[str, ...]
    heading: str
    exercise: str = ""

    @property
    def advice(self) -> str:
        """What to do to get a name that this cell defines."""
        if self.exercise:
            return f"finish {self.exercise} first"
        return f"run the cell under “{self.heading}” first" if self.heading else "run that cell first"


def lesson_cells(notebook: Path | None, source: str) -> list[Cell]:
    """The code cells of ``notebook``, or of the lesson that has a cell with ``source``; none when there is no such.

    A notebook that cannot be read counts as absent.
    """
    if notebook is not None:
        cells = _read(notebook) or _read(NOTEBOOKS / notebook.name)
        if cells:
            return cells
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = _read(path)
        if any(_alike(cell.source, source) for cell in cells):
            return cells
    return []


def open_notebook(namespace: dict[str, Any]) -> Path | None:
    """The notebook of this kernel, as Jupyter's server or VS Code tell it; None when they do not."""
    name = os.environ.get("JPY_SESSION_NAME") or namespace.get("__vsc_ipynb_file__")
    return Path(name) if isinstance(name, str) and name.endswith(".ipynb") else None


def defining_cell(name: str, cells: list[Cell]) -> Cell | None:
    """The first cell that defines ``name``."""
    return next((cell for cell in cells if name in cell.names), None)


def find_origin(name: str, cells: list[Cell], namespace: Mapping[str, Any]) -> Cell | None:
    """The cell to go back to for ``name``: the one that defines it, or the first that this one waits for itself."""
    cell = defining_cell(name, cells)
    if cell is None:
        return None
    reached, pending, seen = [cell], [cell], {name}
    while pending:
        cell = pending.pop()
        earlier = [] if cell.exercise else cells[: cells.index(cell)]
        for used in cell.used_names:
            origin = (
                defining_cell(used, earlier) if _is_missing(used, namespace) and used not in seen else None
            )
            if origin:
                seen.add(used)
                reached.append(origin)
                pending.append(origin)
    return min(reached, key=cells.index)


def _is_missing(name: str, namespace: Mapping[str, Any]) -> bool:
    """Not defined, not written, or the result of a check that was not passed."""
    value = namespace.get(name, ...)
    return is_unfinished(value) or getattr(value, "verdict", "PASSED") != "PASSED"


def _alike(text: str, source: str) -> bool:
    """Two versions of one cell: a line of code in common that is not short."""
    lines = {line.strip() for line in text.splitlines() if len(line.strip()) > 20}
    return any(line.strip() in lines for line in source.splitlines())


def _read(path: Path) -> list[Cell]:
    try:
        raw_cells = json.loads(path.read_text())["cells"]
        pairs = [(cell["cell_type"], "".join(cell["source"])) for cell in raw_cells]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(_cells(pairs))


def _cells(pairs: list[tuple[str, str]]) -> Iterator[Cell]:
    heading = ""
    for index, (kind, source) in enumerate(pairs):
        if kind == "markdown":
            heading = [heading, *HEADING.findall(source)][-1]
        elif kind == "code":
            exercise = ""
            if YOUR_CODE in source:
                following = (text for kind, text in pairs[index:] if kind == "code")
                exercise = next((match[1] for text in following if (match := CHECK.search(text))), "")
            yield Cell(source, frozenset(defined_names(source)), used_names(source), heading, exercise)


def defined_names(source: str) -> set[str]:
    """The names that a cell defines at its top level: assigned, imported, functions, loop and `with` variables."""
    module = parse(source)
    if module is None:
        return set()
    names: set[str] = set()
    for node in _outside_functions(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names


def used_names(source: str) -> tuple[str, ...]:
    """The names that a cell looks up, also in its functions."""
    nodes = ast.walk(parse(source) or ast.Module([], []))
    return tuple(
        dict.fromkeys(
            node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        )
    )


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a cell, which may `await` at its top level; None for a cell that is not Python."""
    lines = (re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.splitlines())
    try:
        return compile("\n".join(lines), "cell", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError):
        return None


def _outside_functions(module: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(module):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _outside_functions(child)
