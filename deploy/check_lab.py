"""Inside the container: start what the Dockerfile's CMD starts; see that JupyterLab answers whom it should.

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


def words(keyword: str) -> list[str]:
    """The first ``keyword [...]`` of the Dockerfile as a list; keyword is a regular expression."""
    found = re.search(rf"^{keyword} (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    if not found:
        raise ValueError(f"{DOCKERFILE} has no line '{keyword} [...]'")
    return json.loads(found[1])


def printed_token(server: Server, patience: float = 30) -> str:
    """The token in the address that JupyterLab prints; raises TimeoutError when it prints none."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := re.search(r"/lab\S*\?token=(\w+)", server.logs(50)):
            return found[1]
        time.sleep(0.2)
    raise TimeoutError(f"JupyterLab printed no address with a token:\n{server.logs(50)}")


def expect(server: Server, path: str, status: int, token: str = "") -> None:
    """Raises AssertionError when ``path`` answers with another status."""
    headers = {"Authorization": f"token {token}"} if token else {}
    answer = httpx.get(server.url + path, headers=headers, timeout=30)
    who = "with" if token else "without"
    print(f"  {path} {who} token: {answer.status_code}")
    assert answer.status_code == status, f"{path} {who} token: {answer.status_code}, expected {status}"


def check(given: str = "") -> None:
    """One start with the token ``given``, or with a generated one."""
    env = {"JUPYTER_TOKEN": given}
    with start(words("CMD"), name="lab", env=env, ready="/api", port=PORT, timeout=240) as server:
        token = given or printed_token(server)
        print(f"JupyterLab up after {server.seconds_to_ready:.0f} s, {'own' if given else 'generated'} token")
        subprocess.run(words(r"\s+CMD"), check=True, stdout=subprocess.DEVNULL)
        print("  HEALTHCHECK: healthy")
        expect(server, "/api", 200)
        expect(server, "/api/status", 403)
        expect(server, "/api/contents", 403)
        expect(server, "/api/contents", 200, token)
        expect(server, "/api/contents", 403, secrets.token_hex())


if __name__ == "__main__":
    assert os.geteuid() != 0, "this runs as root; the container should not"
    check()
    check(given=secrets.token_hex())
    print("container: ok")
