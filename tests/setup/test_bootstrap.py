"""Set-up: which machines it refuses and how, what a second run costs, and what the locks contain."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
INPUTS = ("bootstrap.py", "pyproject.toml", "requirements", "README.md")


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy the files that set-up reads to a folder without an environment."""
    for name in INPUTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run(
        [sys.executable, "bootstrap.py"], cwd=folder, env=env, capture_output=True, text=True
    )


WATCHED = """
import runpy, sys

def hook(event, details):
    if event.partition(".")[0] in ("subprocess", "socket") or event in ("os.system", "os.exec", "os.posix_spawn"):
        print(event, details)

sys.addaudithook(hook)
sys.argv = ["bootstrap.py"]
runpy.run_path("bootstrap.py", run_name="__main__")
"""


def test_a_set_up_that_stands_starts_no_process_and_no_connection() -> None:
    result = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


QUANTIZE = ROOT / ".venv" / "quantize"


def test_the_quantize_environment_has_its_own_transformers_and_the_course_s_torch() -> None:
    """`make test` installs it from its lock, and a second run leaves it as it is."""
    code = "import modelopt, torch, transformers; print(modelopt.__version__, transformers.__version__, torch.__file__)"
    python = [QUANTIZE / "bin" / "python", "-c", code]
    versions = subprocess.run(python, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert versions[:2] == ["0.37.0", "4.56.2"]
    assert Path(versions[2]).is_relative_to(ROOT / ".venv" / "lib")
    before = (QUANTIZE / ".engineroom").stat().st_mtime_ns
    subprocess.run([sys.executable, "bootstrap.py", "--quantize"], check=True, cwd=ROOT)
    assert (QUANTIZE / ".engineroom").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["quantize", "openvino"])
def test_the_lock_leaves_torch_out(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.lock").read_text()
    assert not re.search(r"^(torch|triton|nvidia-cu)[=-]", lock, re.M)


def test_a_missing_compiler_is_named_with_the_line_that_installs_it(clone: Path, tmp_path: Path) -> None:
    result = run(clone, PATH=str(tmp_path / "nothing"))
    assert result.returncode == 1
    assert "C++ compiler" in result.stderr
    assert "apt-get install g++" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_said_before_anything_is_fetched(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 10**9))
    with pytest.raises(bootstrap.SetupError, match="needs 5"):
        bootstrap.check_system()


@pytest.mark.parametrize(("platform", "words"), [("darwin", "Dockerfile"), ("win32", "WSL 2")])
def test_another_system_is_told_where_to_go(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, platform: str, words: str
) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", platform)
    with pytest.raises(bootstrap.SetupError, match=words):
        bootstrap.check_system()


def test_a_failing_step_shows_its_last_lines_and_what_to_do(bootstrap: ModuleType) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no route to host')"]
    with pytest.raises(bootstrap.SetupError, match=r"no route to host\n.*network up.*again"):
        bootstrap.step("fetching", command)


def test_an_interrupted_set_up_is_not_taken_for_complete(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / "stamp")
    bootstrap.STAMP.write_text("of another lock")
    assert not bootstrap.up_to_date()
    bootstrap.STAMP.unlink()
    assert not bootstrap.up_to_date()
    bootstrap.STAMP.write_text(bootstrap.fingerprint())
    assert bootstrap.up_to_date()


def test_a_local_wheel_folder_is_used_when_named(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    assert bootstrap.torch_source() == ["--torch-backend", "cpu"]
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    assert bootstrap.torch_source() == ["--find-links", "wheels"]


@pytest.mark.parametrize("name", ["course", "uv"])
def test_a_lock_holds_every_requirement_by_hash_and_no_index(name: str) -> None:
    lock = (ROOT / f"requirements/{name}.lock").read_text()
    required = re.findall(r"(?m)^([\w-]+)", (ROOT / f"requirements/{name}.in").read_text())
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==(\S+) \\\n    --hash=sha256:", lock))
    assert required
    assert [name for name in required if name not in pinned] == []
    assert len(pinned) == len(re.findall(r"(?m)^\w", lock))
    assert not re.search(r"https?://|--(extra-)?index|--find-links", lock)


def test_what_is_installed_is_what_the_lock_says() -> None:
    from importlib.metadata import version

    lock = (ROOT / "requirements/course.lock").read_text()
    pinned = re.findall(r"(?m)^([\w.-]+)==(\S+) ", lock)
    assert [(name, pin) for name, pin in pinned if version(name) != pin] == []
