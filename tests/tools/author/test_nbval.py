"""The strict nbval of solutions/conftest.py: a right notebook passes, and one that nbval alone lets through fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools.author.files import ROOT
from tools.author.source import METADATA

CHECKED = ["nbval-check-output"]
CHECK = """\
verdict = globals().get("verdict", "PASSED")
def check(name):
    print(verdict, name)
check("00.fresh")
verdict = "NOT YET"
"""


def write(
    path: Path, source: str, printed: str, *, tags: list[str] | None = None, counts: bool = True
) -> None:
    first = new_code_cell("import os\nstarted = True", execution_count=1 if counts else None)
    output = [new_output("stream", name="stdout", text=printed)] if printed else []
    second = new_code_cell(source, execution_count=2 if counts else None, outputs=output)
    for cell in (first, second):
        cell.metadata.tags = tags or []
    notebook = new_notebook(cells=[first, second], metadata=METADATA)
    if tags == CHECKED:
        first.metadata.tags = []
    nbformat.write(notebook, path)


def run(folder: Path) -> tuple[int, str]:
    """Run pytest over the folder's notebooks; return its exit status and output."""
    shutil.copy(ROOT / "solutions" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-rA", "--color=no"]
    result = subprocess.run(
        [*command, *sorted(map(str, folder.glob("*.ipynb")))],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return result.returncode, result.stdout


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("solutions")
    home = "os.listdir(os.environ['ENGINEROOM_HOME'])"
    show_workspace = f"print(os.path.basename(os.getcwd()), os.path.lexists('models'), {home})"
    write(folder / "a_right.ipynb", "print(6 * 7)", "42\n", tags=CHECKED)
    write(folder / "b_wrong.ipynb", "print(6 * 7)", "41\n", tags=CHECKED)
    write(folder / "d_raises.ipynb", "1 / 0", "")
    write(folder / "e_place.ipynb", show_workspace, "work True []\n", tags=CHECKED)
    write(folder / "f_once.ipynb", "os.mkdir('results')", "")
    write(folder / "g_check.ipynb", CHECK, "PASSED 00.fresh\n")
    status, text = run(folder)
    assert status == 1, text
    return text


@pytest.mark.parametrize(
    ("cell", "result"),
    [
        ("a_right.ipynb::Cell 1", "PASSED"),
        ("b_wrong.ipynb::Cell 1", "FAILED"),
        ("d_raises.ipynb::Cell 1", "FAILED"),
        ("e_place.ipynb::Cell 1", "PASSED"),
        ("a_right.ipynb::Cell 1, second run", "PASSED"),
        ("f_once.ipynb::Cell 1", "PASSED"),
        ("f_once.ipynb::Cell 1, second run", "FAILED"),
        ("g_check.ipynb::Cell 1", "PASSED"),
        ("g_check.ipynb::Cell 1, second run", "FAILED"),
    ],
)
def test_each_notebook_gets_what_it_deserves(cell: str, result: str, outcome: str) -> None:
    assert re.search(rf"^{result} .*{cell}(?!,)", outcome, re.MULTILINE), outcome


def test_a_notebook_without_counts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "stripped.ipynb", "print(6 * 7)", "", tags=CHECKED, counts=False)
    status, text = run(tmp_path)
    assert status == 2 and "its count is None, expected 1" in text, text


def test_a_session_in_which_every_cell_is_skipped_fails(tmp_path: Path) -> None:
    write(tmp_path / "skipped.ipynb", "print(6 * 7)", "42\n", tags=["nbval-skip"])
    status, text = run(tmp_path)
    assert status == 1 and "no cell of any notebook ran" in text, text
