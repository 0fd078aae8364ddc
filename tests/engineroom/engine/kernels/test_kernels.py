"""The GPU kernels are right, also where there is no GPU: Triton's interpreter runs them in `.venv/kernels`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".venv" / "kernels" / "bin" / "python"


@pytest.mark.timeout(400)
def test_every_kernel_equals_pytorch() -> None:
    assert PYTHON.exists(), "Triton is missing. Bring it: python3 bootstrap.py --kernels"
    line = [PYTHON, "-m", "tests.engineroom.engine.kernels.interpreted"]
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    errors = {case["case"]: case["error"] for case in map(json.loads, run.stdout.splitlines())}
    assert len(errors) > 100
    assert {case: error for case, error in errors.items() if not error < 1e-4} == {}
