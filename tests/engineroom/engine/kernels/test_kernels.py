"""The GPU kernels without a GPU: Triton's interpreter runs them in `.venv/kernels`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".venv" / "kernels" / "bin" / "python"


@pytest.mark.timeout(400)
def test_every_kernel_equals_pytorch() -> None:
    assert PYTHON.exists(), "Triton is missing. Install it: python3 bootstrap.py --kernels"
    command = [PYTHON, "-m", "tests.engineroom.engine.kernels.interpreted"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    reports = [json.loads(line) for line in process.stdout.splitlines()]
    errors = {report["case"]: report["error"] for report in reports}
    assert len(errors) > 100
    assert {case: error for case, error in errors.items() if not error < 1e-4} == {}
