"""The server that will not go, as the tests of its start and of its keeper use it, and what may be left of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from engineroom.kit import process
from engineroom.kit.diagnose import holder

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COMMAND = [sys.executable, str(HERE / "stubborn_server.py"), "{port}"]


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for a condition; the limit is for what hangs, not for what is slow on a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # clock: a deadline for what hangs
        time.sleep(0.05)
    return condition()


def parts(state: dict) -> tuple[list[int], list[str]]:
    """Pids, and paths in /dev/shm and of the temporary folder, out of the server's own account."""
    everyone = [state, *state["children"]]
    names = [state["semaphore"], *(one["shm"] for one in everyone)]
    return [one["pid"] for one in everyone], [*(f"/dev/shm/{name}" for name in names), state["folder"]]


def state_of(server: process.Server) -> dict:
    return httpx.get(server.url, trust_env=False).json()


def leftovers(port: int, state: dict) -> list[object]:
    pids, files = parts(state)
    left: list[object] = [pid for pid in pids if alive(pid)]
    left += [file for file in files if os.path.exists(file)]
    return left + ([port] if holder(port) else [])
