"""Schemathesis on the server's own OpenAPI document: all of its checks, with valid and invalid requests."""

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
    """The command of this Python environment, else the one on the PATH."""
    in_environment = Path(sys.executable).with_name("schemathesis")
    path = str(in_environment) if in_environment.exists() else shutil.which("schemathesis")
    assert path, "There is no command schemathesis; `make test` installs it."
    return path


@pytest.mark.timeout(400)
def test_all_checks_of_schemathesis(server: Server, tmp_path: Path) -> None:
    before = scrape(server)["time_to_first_token_seconds_count"]
    command = [
        schemathesis(),
        "--config-file",
        CONFIG,
        "run",
        f"{server.url}/openapi.json",
        "--checks",
        "all",
    ]
    command += ["--max-examples", "25", "--seed", "1", "--workers", "1", "--no-color"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "5 selected / 5 total" in result.stdout and " passed" in result.stdout
    after = scrape(server)
    assert after["time_to_first_token_seconds_count"] > before + 50  # the engine answered, not only refused
    assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    assert "Traceback" not in server.logs(500)
