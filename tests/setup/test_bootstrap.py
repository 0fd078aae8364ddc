"""Set-up: which machines it refuses and how, which variables count, what a second run costs, and the locks."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tools.setup.environment import advice
from tools.setup.environment import environment as child_environment

ROOT = Path(__file__).parents[2]
INPUTS = ("bootstrap.py", "pyproject.toml", "requirements", "tools", "README.md")


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


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("error: Failed to fetch: `https://example.org/x`", "network"),
        ("dns error: failed to lookup address information: Temporary failure in name resolution", "network"),
        ("Connection refused (os error 111)", "network"),
        ("ProxyError('Cannot connect to proxy.')", "network"),
        ("error: failed to write to file: No space left on device (os error 28)", "disk"),
        ("error: Permission denied (os error 13)", "lines above"),
        ("ERROR: Can not perform a '--user' install.", "lines above"),
        ("error: Hash mismatch for `torch==2.13.0`", "lines above"),
        ("error: unexpected argument '--torch-backend' found", "lines above"),
    ],
)
def test_the_network_is_suspected_only_where_the_output_speaks_of_it(output: str, expected: str) -> None:
    text = advice(output)
    assert expected in text and text.endswith("finished steps are not repeated.")
    assert ("network" in text) is (expected == "network")


MISLEADING = {
    "PIP_USER": "1", "PIP_TARGET": "/t", "PIP_PREFIX": "/t", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_NO_DEPS": "1",
    "PIP_NO_BINARY": ":all:", "PIP_CONSTRAINT": "/c", "UV_SYSTEM_PYTHON": "1", "UV_PYTHON": "3.9", "UV_TARGET": "/t",
    "UV_NO_BINARY": "1", "UV_PROJECT_ENVIRONMENT": "/e", "UV_EXCLUDE_NEWER": "2020-01-01", "UV_CONSTRAINT": "/c",
    "PYTHONPATH": "/p", "PYTHONHOME": "/h", "PYTHONSTARTUP": "/s", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0",
    "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", "VIRTUAL_ENV": "/v",
    "CONDA_PREFIX": "/c", "CONDA_DEFAULT_ENV": "base",
}  # fmt: skip
PERSONAL = {
    "PIP_FIND_LINKS": "/w", "UV_FIND_LINKS": "/w", "PIP_INDEX_URL": "https://i", "PIP_EXTRA_INDEX_URL": "https://i",
    "PIP_CERT": "/c", "PIP_TRUSTED_HOST": "h", "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "UV_INDEX_URL": "https://i",
    "UV_DEFAULT_INDEX": "https://i", "UV_INDEX_HOUSE_PASSWORD": "x", "UV_CACHE_DIR": "/c", "UV_NO_CACHE": "1",
    "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_TIMEOUT": "60", "SSL_CERT_FILE": "/c", "HTTPS_PROXY": "http://p",
}  # fmt: skip


def test_set_up_drops_what_says_where_to_install_and_keeps_where_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (MISLEADING | PERSONAL).items():
        monkeypatch.setenv(name, value)
    environment = child_environment(tmp_path / "home")
    assert {name: environment.get(name) for name in PERSONAL} == PERSONAL
    assert not {name for name, value in MISLEADING.items() if environment.get(name) == value}
    assert not (tmp_path / "home").exists()
    monkeypatch.setenv("HOME", "/proc/no")
    assert child_environment(tmp_path / "home")["HOME"] == str(tmp_path / "home")
    assert (tmp_path / "home").is_dir()


def test_an_environment_is_created_whatever_the_variables_say(
    monkeypatch: pytest.MonkeyPatch, bootstrap: ModuleType, tmp_path: Path
) -> None:
    """Real steps: an environment is made and the library installed there, and nothing anywhere else."""
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, str(tmp_path / "elsewhere") if value in ("/t", "/e") else value)
    for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    folder = tmp_path / "mein Kürs 'x'"
    bootstrap.step(
        "", [*bootstrap.find_uv(), "venv", "--no-project", "--python", str(bootstrap.PYTHON), str(folder)]
    )
    python = folder / "bin" / "python"
    shutil.copytree(ROOT / "requirements" / "vllm-companion", tmp_path / "companion")
    (folder / bootstrap.PACKAGES / "course.pth").write_text(
        str(bootstrap.VENV / bootstrap.PACKAGES)
    )  # setuptools
    install = ["pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", str(python)]
    bootstrap.step("", [*bootstrap.find_uv(), *install, str(tmp_path / "companion")])
    assert list(folder.glob(f"{bootstrap.PACKAGES}/vllm_companion*"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_command_runs_in_a_folder_with_spaces_and_quotes(bootstrap: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "mein Kürs 'x'" / ("long" * 60) / "bin"
    folder.mkdir(parents=True)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    (folder / "engineroom").write_text(bootstrap.COMMAND, encoding="utf-8")
    (folder / "engineroom").chmod(0o755)
    (tmp_path / "link").symlink_to(folder / "engineroom")
    for command in (folder / "engineroom", tmp_path / "link"):
        result = subprocess.run(
            [command, "--help"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert "convert, build, serve" in result.stdout, result.stderr


@pytest.mark.parametrize("version", [(3, 8), (3, 9), (3, 13), (3, 14)])
def test_set_up_can_be_read_by_pythons_of_many_versions(version: tuple[int, int]) -> None:
    for path in (
        ROOT / "bootstrap.py",
        *(ROOT / "tools" / "setup").glob("*.py"),
        ROOT / "tools" / "__init__.py",
    ):
        ast.parse(path.read_text(), feature_version=version)


def other_pythons() -> list[str]:
    """The Pythons of this machine that are no 3.11."""
    names = [f"python3.{minor}" for minor in (8, 9, 10, 12, 13, 14)]
    runs = [
        name
        for name in names
        if shutil.which(name) and not subprocess.run([name, "-c", ""], stderr=-3).returncode
    ]
    roots = Path.home().glob(".pyenv/versions/3.*/bin/python3")
    return [*runs, *(str(path) for path in roots if not re.search(r"/3\.(6|7|11)\.", str(path)))]


def test_a_finished_set_up_is_recognised_by_every_python_of_this_machine() -> None:
    for python in other_pythons():
        result = subprocess.run([python, "bootstrap.py"], cwd=ROOT, capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_output_that_a_terminal_cannot_show_does_not_end_set_up(clone: Path, tmp_path: Path) -> None:
    result = run(clone, PATH=str(tmp_path / "nothing"), PYTHONIOENCODING="ascii", LC_ALL="C")
    assert "C++ compiler" in result.stderr and "Traceback" not in result.stderr


def test_a_checkout_that_cannot_be_written_to_is_named(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "VENV", Path("/proc/course/.venv"))
    with pytest.raises(bootstrap.SetupError, match="cannot be written to"), bootstrap.one_at_a_time():
        pass


def test_an_old_uv_on_the_path_is_not_used(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for version, used in (("0.4.30", False), ("0.7.0", True), ("1.0.0 (abc 2026-01-01)", True), ("?", False)):
        uv.write_text(f"#!/bin/sh\necho 'uv {version}'\n")
        uv.chmod(0o755)
        assert (bootstrap.find_uv() == [str(uv)]) is used


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
