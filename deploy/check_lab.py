"""Run inside the container: start the Dockerfile's CMD; check that JupyterLab answers with a token and not without.

docker run --rm engineroom:cpu python deploy/check_lab.py
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from pathlib import Path

import httpx

from engineroom.kit.process import Server, start

DOCKERFILE = Path(__file__).resolve().parents[1] / "Dockerfile"
PORT = 8888


def instruction(keyword: str) -> list[str]:
    """Return the first ``keyword [...]`` of the Dockerfile as a list; ``keyword`` is a regular expression."""
    match = re.search(rf"^{keyword} (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    if not match:
        raise ValueError(f"{DOCKERFILE} has no line '{keyword} [...]'")
    return json.loads(match[1])


def printed_token(server: Server, seconds: float = 30) -> str:
    """Return the token in the address that JupyterLab prints. Raises TimeoutError when it prints none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if match := re.search(r"/lab\S*\?token=(\w+)", server.logs(50)):
            return match[1]
        time.sleep(0.2)
    raise TimeoutError(f"JupyterLab printed no address with a token:\n{server.logs(50)}")


def expect(server: Server, path: str, status: int, token: str = "") -> None:
    """Raise AssertionError when a GET of ``path`` is answered with another status."""
    headers = {"Authorization": f"token {token}"} if token else {}
    response = httpx.get(server.url + path, headers=headers, timeout=30)
    access = "with token" if token else "without token"
    print(f"  {path} {access}: {response.status_code}")
    assert response.status_code == status, f"{path} {access}: {response.status_code}, expected {status}"


def check(own_token: str = "") -> None:
    """Start once, with this token or with a generated one, and check the answers."""
    env = {"JUPYTER_TOKEN": own_token}
    with start(instruction("CMD"), name="lab", env=env, ready="/api", port=PORT, timeout=240) as server:
        token = own_token or printed_token(server)
        print(
            f"JupyterLab up after {server.seconds_to_ready:.0f} s, {'own' if own_token else 'generated'} token"
        )
        subprocess.run(instruction(r"\s+CMD"), check=True, stdout=subprocess.DEVNULL)
        print("  HEALTHCHECK: healthy")
        expect(server, "/api", 200)
        expect(server, "/api/status", 403)
        expect(server, "/api/contents", 403)
        expect(server, "/api/contents", 200, token)
        expect(server, "/api/contents", 403, secrets.token_hex())


if __name__ == "__main__":
    assert os.geteuid() != 0, "this runs as root; the container should not"
    check()
    check(own_token=secrets.token_hex())
    print("container: ok")
