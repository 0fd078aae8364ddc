"""CI holds what `make check` holds: types, import contracts, and a list of dependencies equal to the imports."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

import bootstrap

ROOT = Path(__file__).parents[2]
CHECK = ROOT / ".venv" / "check" / "bin"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PYPROJECT["dependency-groups"]
ASKED = {
    "dependencies": PYPROJECT["project"]["dependencies"],
    **PYPROJECT["project"]["optional-dependencies"],
    **GROUPS,
}


def run(*command: str | Path, folder: Path = ROOT) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]


def test_types() -> None:
    run(CHECK / "basedpyright")


def test_contracts() -> None:
    run(CHECK / "lint-imports", "--no-cache")


def test_the_library_declares_what_it_imports() -> None:
    run(CHECK / "deptry", "engineroom")


def test_each_group_declares_what_is_imported() -> None:
    run(CHECK / "deptry", ".", "--non-dev-dependency-groups", ",".join(GROUPS))


@pytest.mark.parametrize("name", ["ruff check", "ruff format --check"])
def test_style(name: str) -> None:
    tool, *arguments = name.split()
    run(CHECK / tool, *arguments)


@pytest.mark.parametrize("name", ASKED)
def test_the_lock_holds_what_pyproject_asks_for(name: str) -> None:
    lock = (ROOT / "requirements" / "course.lock").read_text()
    pinned = set(re.findall(r"(?m)^([\w.-]+)==", lock))
    names = {re.split(r"[\[<>=~]", asked)[0] for asked in ASKED[name]}
    assert names - pinned - {"engineroom"} == set()


def test_the_wheel_holds_the_library_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "engineroom", tmp_path / "engineroom")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    uv = bootstrap.find_uv()
    run(*uv, "build", "--wheel", "--no-build-isolation", "--python", bootstrap.PYTHON, folder=tmp_path)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    files = {
        name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")
    }
    source = {path.relative_to(ROOT) for path in (ROOT / "engineroom").rglob("*") if path.is_file()}
    assert files == {str(path) for path in source if "__pycache__" not in path.parts}
