"""One engine in a process of its own, which idles while the other engines run; seen from the process that measures.

It is a server of the process kit and not a child of `multiprocessing`: OpenMP reads its environment when the process
starts, vLLM starts processes of its own that must end with it, and the log says why an engine failed.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
from pydantic import BaseModel, TypeAdapter

from engineroom.compare.settings import CompareError, EngineSettings, TokenIds
from engineroom.kit import openmp
from engineroom.kit.network import http_client
from engineroom.kit.process import start

START_TIMEOUT = 1200  # seconds until the first token: the engine may compile first
BATCH_TIMEOUT = 3600  # seconds
LOG_LINES = 15


class Batch(BaseModel):
    """What the process is asked for: answers of `max_tokens` tokens to all prompts."""

    prompts: TokenIds
    max_tokens: int


class BatchResult(BaseModel, frozen=True):
    """`seconds` that a batch took, and the number of tokens in each answer."""

    seconds: float
    num_tokens: list[int]


class StartTimes(BaseModel):
    """`load_seconds` of the engine, and when the first token came, in seconds of `time.monotonic`.

    On Linux that clock is the same in all processes.
    """

    load_seconds: float
    first_token_at: float


class EngineProcess(AbstractContextManager["EngineProcess"]):
    """Starts `engineroom.compare.worker` and sends it batches.

    `start_seconds` is the time from the start of the process to the first token, `load_seconds` the part of it in which
    the engine loads, without Python's imports. Raises ServerFailed with the end of the log when the engine does not
    load.
    """

    def __init__(self, name: str, settings: EngineSettings) -> None:
        self.name = name
        settings_json = TypeAdapter(EngineSettings).dump_json(settings).decode()
        started_at = time.monotonic()
        self.server = start(
            [sys.executable, "-m", "engineroom.compare.worker", "{port}", name, settings_json],
            name=f"compare {name}",
            env=_openmp_environment(name, settings),
            ready="/",
            timeout=START_TIMEOUT,
        )
        self._http = http_client(self.server.url, timeout=BATCH_TIMEOUT)
        times = StartTimes.model_validate_json(self._http.get("/").content)
        self.load_seconds = times.load_seconds
        self.start_seconds = times.first_token_at - started_at

    def run(self, prompts: TokenIds, max_tokens: int) -> BatchResult:
        """Run one batch. Raises CompareError when the engine fails, with its error or the end of its log."""
        batch = Batch(prompts=prompts, max_tokens=max_tokens)
        try:
            response = self._http.post("/", json=batch.model_dump())
        except httpx.TransportError:
            log = self.server.excerpt(LOG_LINES)
            raise CompareError(f"{self.name} did not answer. The last lines of its log:\n{log}") from None
        if response.is_error:
            error = response.json()["detail"]
            raise CompareError(f"{self.name} failed: {error} Its log is {self.server.log}.")
        return BatchResult.model_validate_json(response.content)

    def peak_memory(self) -> int:
        """The sum of the peak resident memory of the process and of the children that it has now, in bytes."""
        parent = psutil.Process(self.server.pid)
        return sum(_peak_memory(process.pid) for process in (parent, *parent.children(recursive=True)))

    def stop(self) -> None:
        self._http.close()
        self.server.stop()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _openmp_environment(name: str, settings: EngineSettings) -> dict[str, str]:
    """The same number of threads for every engine, each bound to a core.

    vLLM and OpenVINO bind their threads themselves and must find all cores free. Our own engine has a time of its own
    for which a waiting thread spins (engineroom/kit/openmp.py); the others have libgomp's. Neither is inherited.
    """
    spinning = openmp.SETTINGS if name.startswith("aot") else openmp.LIBGOMP_DEFAULTS
    environment = {"OMP_NUM_THREADS": str(settings.threads), **spinning}
    if name in ("vllm", "openvino") or settings.device != "cpu":
        return environment
    places = ",".join(f"{{{core}}}" for core in settings.cores)
    return environment | {"OMP_PROC_BIND": "true", "OMP_PLACES": places}


def _peak_memory(pid: int) -> int:
    """Peak resident memory in bytes. Linux reports it as VmHWM, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
