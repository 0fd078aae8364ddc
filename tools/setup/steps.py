"""A step of set-up: one command, with a progress line, and what to do when it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.setup.environment import advice, environment

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
SPARE_HOME = VENV / "home"


class SetupError(Exception):
    """Something is missing; the message says what, and the command that installs it."""


def step(title: str, command: list[str], hint: str = "") -> None:
    """Run one command, with a progress line if it has a title. Raises SetupError with its last lines and advice."""
    if title:
        print(f"  … {title}", flush=True)
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(SPARE_HOME),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        output = (result.stdout + result.stderr).strip()
        tail = "\n".join(output.splitlines()[-12:])
        raise SetupError(f"'{' '.join(command[:4])} …' failed.\n{tail}\n{advice(output, hint)}")
