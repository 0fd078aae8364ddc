"""Kernels listen on sockets in a private folder, wherever the temporary folder is, and say nothing about it."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from engineroom.kit.network import http_client
from engineroom.kit.process import start
from tests.engineroom.kit.stubborn import eventually
from tools.author.execute import execute, workspace
from tools.author.run import run
from tools.kernel import IpcKernelManager, private_runtime

ROOT = Path(__file__).parents[2]
LESSON = """\
# %%
import os

from ipykernel.connect import get_connection_info

print(get_connection_info())
print(os.environ["HOME"], os.environ.get("PYTHONSTARTUP"))
"""


@pytest.fixture(params=["short", "long", "spaces"])
def temporary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """TMPDIR as batch systems and people have it; "long" has 100 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        name = {"short": "t", "long": "x" * (99 - len(base)), "spaces": "mein Kürs 'x'"}[request.param]
        folder = Path(base, name)
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield folder


def test_a_lesson_runs_without_tcp(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    startup = tmp_path / "startup.py"
    startup.write_text("raise SystemExit('PYTHONSTARTUP ran')")
    monkeypatch.setenv("PYTHONSTARTUP", str(startup))
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "00_lesson.py").write_text(LESSON)
    before = dict(os.environ)
    report = run(out=tmp_path / "out", root=tmp_path)
    assert report.ok, report.lessons[0].error
    [cell] = json.loads((tmp_path / "out" / "run" / "00_lesson.ipynb").read_text())["cells"]
    text = "".join(line for output in cell["outputs"] for line in output["text"])
    assert '"transport": "ipc"' in text and text.rstrip().endswith("None")
    assert "encryption" not in "".join(capfd.readouterr())
    assert dict(os.environ) == before and list(temporary.iterdir()) == []


def test_the_folder_of_the_sockets_is_private_and_does_not_last(temporary: Path) -> None:
    with private_runtime() as variables:
        folder = Path(*variables.values())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
    assert IpcKernelManager().transport == "ipc"


def test_the_kernels_of_jupyterlab(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home whose path is too long for sockets, and one that cannot be written to, have their sockets elsewhere."""
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path / "own"))
    home = tmp_path / ("h" * 60)
    home.mkdir()
    environment = {
        "HOME": str(home),
        "JUPYTER_TOKEN": "t",
        "TMPDIR": str(temporary),
        "JUPYTER_RUNTIME_DIR": "",
    }
    command = [
        sys.executable,
        "-m",
        "tools",
        "lab",
        "--no-browser",
        "--port",
        "{port}",
        "--work",
        str(tmp_path / "w"),
    ]
    with start(command, name="lab", env=environment, ready="/api", timeout=300) as lab:
        with http_client(lab.url, headers={"Authorization": "token t"}, timeout=120) as http:
            kernel = http.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
            files = [
                *Path("/").glob(f"tmp/**/kernel-{kernel}.json"),
                *temporary.glob(f"**/kernel-{kernel}.json"),
            ]
            assert json.loads(files[0].read_text())["transport"] == "ipc"
            assert eventually(Path(f"{files[0].with_suffix('')}-ipc-1").is_socket)  # once the kernel listens
            http.delete(f"/api/kernels/{kernel}").raise_for_status()
        assert "encryption" not in lab.output()


def test_a_kernel_in_another_folder_is_reached(temporary: Path) -> None:
    """The client's folder is not the kernel's: with relative paths of sockets, each would look in its own."""
    notebook = new_notebook(cells=[new_code_cell("import os\nprint(os.path.basename(os.getcwd()))")])
    with workspace() as folders:
        executed = execute(notebook, folders)
    assert executed.cells[0].outputs[0].text == f"{folders.work.name}\n"
