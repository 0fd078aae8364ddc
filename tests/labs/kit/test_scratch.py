"""A lesson's temporary folder: cells can be run again, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from labs.kit.scratch import ScratchFolder, scratch_folder

ROOT = Path(__file__).parents[3]


def test_running_the_cell_again_keeps_the_folder_and_its_files() -> None:
    scratch = scratch_folder("lesson-98")
    (scratch.fresh("engine")).write_text("code")
    assert scratch_folder("lesson-98") is scratch
    assert (scratch.path / "engine").read_text() == "code"
    assert scratch_folder("lesson-99").path != scratch.path


def test_a_fresh_name_is_free_whatever_was_there() -> None:
    scratch = ScratchFolder("lesson-98")
    (scratch.fresh("output") / "rank0").mkdir(parents=True)
    assert not scratch.fresh("output").exists()
    scratch.fresh("output").write_text("a file")
    assert not scratch.fresh("output").exists()
    scratch.remove()


def test_after_the_last_cell_an_earlier_one_can_still_be_run() -> None:
    scratch = ScratchFolder("lesson-98")
    scratch.remove()
    scratch.remove()
    assert not scratch.path.exists()
    scratch.fresh("output").mkdir()
    scratch.remove()


def test_the_folder_of_a_killed_kernel_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, signal; from labs.kit.scratch import scratch_folder\n"
        "print(scratch_folder('lesson-98').path, flush=True); os.kill(os.getpid(), signal.{})"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    folders = []
    for name in ("SIGKILL", "SIGCONT"):
        line = [sys.executable, "-c", script.format(name)]
        run = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        folders.append(Path(run.stdout.strip()))
        assert folders[-1].is_relative_to(tmp_path)
        assert folders[-1].exists() == (name == "SIGKILL")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_removed_when_the_process_ends() -> None:
    script = "from labs.kit.scratch import scratch_folder; print(scratch_folder('lesson-98').path)"
    run = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    path = Path(run.stdout.strip())
    assert path.name.startswith("lesson-98-") and not path.exists()
