"""The command of the stubborn server, and what may be left of it, for the tests of process and keeper."""

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
from engineroom.kit.ports import port_holder

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COMMAND = [sys.executable, str(HERE / "stubborn_server.py"), "{port}"]


def alive(pid: int) -> bool:
    """Return True while the process runs; a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until the condition holds once; return whether it did.

    The limit ends a test that hangs; it is no bound on speed.
    """
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:  # clock: a limit for a test that hangs
        time.sleep(0.05)
    return holds


def resources(state: dict) -> tuple[list[int], list[str]]:
    """Return the pids, and the paths in /dev/shm and of the temporary folder, that the server reports."""
    processes = [state, *state["children"]]
    names = [state["semaphore"], *(process["shm"] for process in processes)]
    files = [*(f"/dev/shm/{name}" for name in names), state["folder"]]
    return [process["pid"] for process in processes], files


def state_of(server: process.Server) -> dict:
    return httpx.get(server.url, trust_env=False).json()


def leftovers(port: int, state: dict) -> list[object]:
    """Return the pids that still run, the files that still exist, and the port if it is in use."""
    pids, files = resources(state)
    running: list[object] = [pid for pid in pids if alive(pid)]
    existing = [file for file in files if os.path.exists(file)]
    return [*running, *existing, *([port] if port_holder(port) else [])]
