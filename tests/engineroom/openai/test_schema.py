"""Schemathesis on the server's own OpenAPI document: every check it has, right and wrong requests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from engineroom.kit.process import Server
from tests.engineroom.openai.conftest import scrape

CONFIG = Path(__file__).with_name("schemathesis.toml")


def schemathesis() -> str:
    """Of this Python environment, else on the PATH."""
    beside = Path(sys.executable).with_name("schemathesis")
    found = str(beside) if beside.exists() else shutil.which("schemathesis")
    assert found, "There is no command schemathesis; `make test` installs it."
    return found


@pytest.mark.timeout(400)
def test_all_checks_of_schemathesis(server: Server, tmp_path: Path) -> None:
    before = scrape(server)["time_to_first_token_seconds_count"]
    line = [schemathesis(), "--config-file", CONFIG, "run", f"{server.url}/openapi.json", "--checks", "all"]
    line += ["--max-examples", "25", "--seed", "1", "--workers", "1", "--no-color"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "5 selected / 5 total" in run.stdout and " passed" in run.stdout
    after = scrape(server)
    assert after["time_to_first_token_seconds_count"] > before + 50  # the engine answered, not only refused
    assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    assert "Traceback" not in server.logs(500)
