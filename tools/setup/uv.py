"""The installer uv: the one on the PATH, or the pinned version in an environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from tools.setup.environment import environment
from tools.setup.steps import SPARE_HOME, VENV, step

UV_VERSION = (0, 7)  # the first with all options that are used here


def find_uv() -> list[str]:
    """Return the command uv: from the PATH if it is new enough, else the pinned version in a separate environment."""
    path = shutil.which("uv")
    if path and uv_version(path) >= UV_VERSION:
        return [path]
    folder = VENV / "uv"
    if not (folder / "bin" / "uv").exists():
        shutil.rmtree(folder, ignore_errors=True)
        hint = "python3 lacks venv or pip.\n  sudo apt-get install python3-venv python3-pip"
        step("uv, the installer", [sys.executable, "-m", "venv", str(folder)], hint)
        pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        step("", [*pip, "--require-hashes", "-r", "requirements/uv.lock"])
    return [str(folder / "bin" / "uv")]


def uv_version(path: str) -> tuple[int, ...]:
    """Return the version of a uv, () when it does not run."""
    try:
        output = subprocess.run(
            [path, "--version"], env=environment(SPARE_HOME), capture_output=True, encoding="utf-8"
        ).stdout
    except OSError:
        return ()
    match = re.search(r"\d+(\.\d+)+", output)
    return tuple(map(int, match.group().split("."))) if match else ()
