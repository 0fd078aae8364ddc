from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import bootstrap

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of the library from a copy of its sources; return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "engineroom", folder / "engineroom", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    build = ["build", "--wheel", "--no-build-isolation", "--python", str(bootstrap.PYTHON)]
    result = subprocess.run([*bootstrap.find_uv(), *build], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = (folder / "dist").glob("*.whl")
    return path
