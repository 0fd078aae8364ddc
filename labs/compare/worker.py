"""An engine in a process of its own, idle while another one runs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from labs.compare.engines import ENGINES, Job, Prompts


class Run(NamedTuple):
    """Seconds of one batch, and how many tokens each answer had."""

    seconds: float
    tokens: list[int]


class Worker:
    """`start_seconds`: from the start of the process to the first token; `load_seconds`: of it, the engine's own part,
    without Python's imports. Raises RuntimeError: what the engine said."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, job))
        began = time.perf_counter()
        with _environment(_threads(name, job)):
            self._process.start()
        theirs.close()
        try:
            self.load_seconds = self._receive().seconds
            self._receive()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - began

    def run(self, prompts: Prompts, max_tokens: int) -> Run:
        self._pipe.send((prompts, max_tokens))
        return self._receive()

    def memory(self) -> int:
        """Most resident bytes at any time, of the process and the children it has now."""
        found = psutil.Process(self._process.pid)
        return sum(_peak(one.pid) for one in (found, *found.children(recursive=True)))

    def stop(self) -> None:
        """The whole process group goes: vLLM has an engine process of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    def _receive(self) -> Run:
        try:
            said = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name} ended without a word; see its output above.") from None
        if isinstance(said, str):
            raise RuntimeError(f"{self.name}: {said}")
        return said


def _threads(name: str, job: Job) -> dict[str, str]:
    """As many threads for all, each bound to a core; vLLM binds its own, and must find all cores free to choose. A
    thread that waits gives its core away soon, as machines are shared (labs/engine/__init__.py)."""
    number = {"OMP_NUM_THREADS": str(job.threads), "GOMP_SPINCOUNT": "2000"}
    if name == "vllm" or job.device != "cpu":
        return number
    places = ",".join(f"{{{core}}}" for core in job.cores)
    return number | {"OMP_PROC_BIND": "true", "OMP_PLACES": places}


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= settings
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _serve(pipe: Connection, name: str, job: Job) -> None:
    os.setpgrp()
    try:
        began = time.perf_counter()
        engine = ENGINES[name](job)
        pipe.send(Run(time.perf_counter() - began, []))
        pipe.send(_timed(engine.run, [[1, 2, 3]], 1))
        while True:
            pipe.send(_timed(engine.run, *pipe.recv()))
    except EOFError:  # the other side is gone
        os.killpg(0, signal.SIGKILL)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _peak(process: int) -> int:
    """Linux counts it as VmHWM, in KiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _timed(run, prompts: Prompts, max_tokens: int) -> Run:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    answers = run(prompts, max_tokens)
    return Run(time.perf_counter() - began, list(map(len, answers)))
