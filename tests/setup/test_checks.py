"""What `make check` checks is tested by CI too: types, import contracts, style, declared dependencies."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = ROOT / ".venv" / "check" / "bin"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PYPROJECT["dependency-groups"]
REQUIREMENTS = {
    "dependencies": PYPROJECT["project"]["dependencies"],
    **PYPROJECT["project"]["optional-dependencies"],
    **GROUPS,
}


def run(*command: str | Path) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-8000:]


@pytest.mark.timeout(600)
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


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_lock_holds_what_pyproject_asks_for(name: str) -> None:
    lock = (ROOT / "requirements" / "course.lock").read_text()
    pinned = set(re.findall(r"(?m)^([\w.-]+)==", lock))
    names = {re.split(r"[\[<>=~]", requirement)[0] for requirement in REQUIREMENTS[name]}
    assert names - pinned - {"engineroom"} == set()


def test_the_wheel_contains_the_library_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    files = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    sources = {path.relative_to(ROOT) for path in (ROOT / "engineroom").rglob("*") if path.is_file()}
    assert files == {str(path) for path in sources if "__pycache__" not in path.parts}
