"""The lessons as they are handed out: in step with their sources, without violations, runnable to the first check."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.author.build import build
from tools.author.execute import workspace
from tools.author.files import ROOT, lesson_sources
from tools.author.gates import problems
from tools.author.gates.exercises import check_calls
from tools.author.gates.notebook_file import output_text
from tools.kernel import IpcKernelManager

LEARNERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 600


def names() -> list[str]:
    return [path.stem for path in sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py"))]


def test_there_is_a_learner_notebook_for_each_lesson() -> None:
    assert [path.stem for path in LEARNERS] == [path.stem for path in lesson_sources()]


def test_everything_is_in_step() -> None:
    report = build(check=True)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", names())
def test_gates(name: str) -> None:
    violations = problems([name])
    assert not violations, "\n".join(map(str, violations))


def first_check(notebook: nbformat.NotebookNode) -> tuple[int, str]:
    """Return the position of the first cell with a check, and the check's id."""
    for position, cell in enumerate(notebook.cells):
        calls = check_calls(cell.source) if cell.cell_type == "code" else []
        if calls and calls[0]:
            return position, calls[0]
    pytest.fail("no check(…) in this notebook")


@pytest.mark.timeout(SECONDS_PER_CELL)
@pytest.mark.parametrize("path", LEARNERS, ids=lambda path: path.stem)
def test_an_untouched_lesson_runs_to_its_first_check_and_gets_a_hint(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    position, name = first_check(notebook)
    notebook.cells = notebook.cells[: position + 1]
    with workspace() as folders:
        client = NotebookClient(
            notebook,
            timeout=SECONDS_PER_CELL,
            startup_timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            kernel_manager_class=IpcKernelManager,
            resources={"metadata": {"path": str(folders.work)}},
        )
        client.execute()
    texts = [output_text(output).strip() for output in notebook.cells[-1].outputs]
    start = f"NOT YET {name}: "
    assert any(text.startswith(start) and len(text) > len(start) + 10 for text in texts), texts
