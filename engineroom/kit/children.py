"""End the processes that a command has started and left."""

from __future__ import annotations

import sys
from contextlib import suppress

import psutil

from engineroom.kit import keeper

GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL


def end_all() -> None:
    """End every process below this one and wait until it has ended. Servers are stopped by their keepers."""
    if process := sys.modules.get("engineroom.kit.process"):
        process.stop_all()
    keeper.terminate(_without_keeper, GRACE_SECONDS)
    psutil.wait_procs(_keepers(), timeout=keeper.GRACE_SECONDS + keeper.KILL_SECONDS)


def _keepers() -> list[psutil.Process]:
    """Return the keepers below this process: those of its own servers, and of the servers of kernels that it ran."""
    return [process for process in psutil.Process().children(recursive=True) if keeper.is_keeper(process)]


def _without_keeper() -> list[psutil.Process]:
    keepers = _keepers()
    watched = {*keepers, *(process for parent in keepers for process in parent.children(recursive=True))}
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process not in watched and _runs(process)]


def _runs(process: psutil.Process) -> bool:
    """Return False for a zombie, whose parent may never ask for its exit status."""
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
