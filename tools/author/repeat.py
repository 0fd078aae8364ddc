"""A lesson as a learner runs it who goes back: each cell twice in a row, then all cells again, in one kernel."""

from __future__ import annotations

from copy import deepcopy

from nbformat import NotebookNode

RUN = "engineroom_run"  # in a cell's metadata: which run of the cell this is
SECOND, AGAIN = "second run", "all again"


def repeated(notebook: NotebookNode) -> NotebookNode:
    """Return a copy in which each code cell is followed by itself, and all code cells follow once more at the end.

    The cell with the tag ``parameters`` runs once: papermill's own values come after it.
    """
    copy = deepcopy(notebook)
    again = [_run(cell, AGAIN) for cell in copy.cells if _is_repeated(cell)]
    copy.cells = [run for cell in copy.cells for run in _twice(cell)] + again
    return copy


def run_name(cell: NotebookNode) -> str:
    """Return which repetition of its cell this is; "" for the first run."""
    return cell.metadata.get(RUN, "")


def _twice(cell: NotebookNode) -> list[NotebookNode]:
    return [cell, _run(cell, SECOND)] if _is_repeated(cell) else [cell]


def _is_repeated(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])


def _run(cell: NotebookNode, name: str) -> NotebookNode:
    run = deepcopy(cell)
    run.id = f"{cell.id}-{name.replace(' ', '-')}"
    run.metadata[RUN] = name
    return run
