"""An engine in a process of its own, idle while another one runs.

`python -m engineroom.compare.worker PORT NAME JOB` answers one request at a time, in the thread that loaded the engine: a
second thread would get OpenMP threads of its own.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
from pydantic import TypeAdapter

from engineroom.compare.engines import ENGINES
from engineroom.compare.settings import Job, Prompts
from engineroom.kit.diagnose import HOST
from engineroom.kit.process import start

PATIENCE = 1200  # seconds to the first token: an engine may compile before


class Run(NamedTuple):
    """Seconds of one batch, and how many tokens each answer had."""

    seconds: float
    tokens: list[int]


class Worker(AbstractContextManager["Worker"]):
    """`start_seconds`: from the start of the process to the first token; `load_seconds`: of it, the engine's own part,
    without Python's imports. Raises ServerFailed, a RuntimeError: what the engine said."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        line = [sys.executable, "-m", __name__, "{port}", name, TypeAdapter(Job).dump_json(job).decode()]
        began = time.monotonic()
        self.server = start(
            line, name=f"compare {name}", env=_threads(name, job), ready="/", timeout=PATIENCE
        )
        self._http = httpx.Client(base_url=self.server.url, timeout=None, trust_env=False, verify=False)
        told = self._http.get("/").json()
        self.load_seconds, self.start_seconds = told["load_seconds"], told["first_token_at"] - began

    def run(self, prompts: Prompts, max_tokens: int) -> Run:
        body = {"prompts": prompts, "max_tokens": max_tokens}
        try:
            answer = self._http.post("/", json=body)
        except httpx.TransportError:
            raise RuntimeError(f"{self.name} failed. Its last words:\n{self.server.logs(15)}") from None
        return Run(**answer.json())

    def memory(self) -> int:
        """Most resident bytes at any time, of the process and the children it has now."""
        found = psutil.Process(self.server.pid)
        return sum(_peak(one.pid) for one in (found, *found.children(recursive=True)))

    def stop(self) -> None:
        self._http.close()
        self.server.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _threads(name: str, job: Job) -> dict[str, str]:
    """As many threads for all, each bound to a core; two bind their own, and must find all cores free to choose. How
    long a thread waits is ours to choose for our engine (engineroom/engine/__init__.py); others have libgomp's defaults."""
    number = {"OMP_NUM_THREADS": str(job.threads)}
    if not name.startswith("aot"):
        number |= {"GOMP_SPINCOUNT": "300000", "OMP_WAIT_POLICY": ""}
    if name in ("vllm", "openvino") or job.device != "cpu":
        return number
    places = ",".join(f"{{{core}}}" for core in job.cores)
    return number | {"OMP_PROC_BIND": "true", "OMP_PLACES": places}


def _peak(process: int) -> int:
    """Linux counts it as VmHWM, in KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Handler(BaseHTTPRequestHandler):
    """GET / tells when the engine was ready, POST / runs a batch; an exception ends up in the log."""

    engine: Any
    ready: dict[str, float]

    def do_GET(self) -> None:
        self._answer(self.ready)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        began = time.perf_counter()
        answers = self.engine.run(asked["prompts"], asked["max_tokens"])
        self._answer({"seconds": time.perf_counter() - began, "tokens": [len(one) for one in answers]})

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a line for each request."""


def main(port: str, name: str, job: str) -> None:
    began = time.monotonic()
    Handler.engine = ENGINES[name](TypeAdapter(Job).validate_json(job))
    loaded = time.monotonic()
    Handler.engine.run([[1, 2, 3]], 1)
    first = time.monotonic()  # on Linux one clock for all processes
    Handler.ready = {"load_seconds": loaded - began, "first_token_at": first}
    HTTPServer((HOST, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
