"""The list of servers that run, one file each, and the clean-up of those whose keeper has died."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel

from labs.kit import keeper
from labs.kit.home import home, set_aside

DAY = 86_400  # seconds


class Entry(BaseModel):
    """What a keeper notes of its server: ``<id>.json``, where the id is also the mark of its processes."""

    name: str
    port: int
    place: str
    keeper: keeper.Identity
    tree: set[keeper.Identity]
    shm: set[keeper.ShmFile]


def reap() -> list[str]:
    """Kill what servers with a dead keeper left and delete their /dev/shm files; say what was done.

    A server whose keeper lives is not touched: that keeper watches its owner.
    """
    said = []
    for path in sorted(home("servers").glob("*.json")):
        try:
            entry = Entry.model_validate_json(path.read_bytes())
        except FileNotFoundError:  # its keeper has just removed it
            continue
        except ValueError:
            said.append(f"The server ledger {path} was unreadable; moved it to {set_aside(path).name}.")
            continue
        if entry.place != keeper.place():  # another boot or container
            if time.time() - path.stat().st_mtime > DAY:
                path.unlink(missing_ok=True)
        elif keeper.identity(entry.keeper[0]) != entry.keeper:
            said.append(_clean(path, entry))
    return said


def _clean(path: Path, entry: Entry) -> str:
    who = f"{entry.name} (port {entry.port})"
    deadline = time.monotonic() + keeper.PATIENCE
    while rest := _survivors(path.stem, entry):
        if time.monotonic() > deadline:
            return f"Processes of {who} do not die; restart the machine."
        entry.shm |= keeper.shm_used_by(process.pid for process in rest)
        keeper.send(rest, signal.SIGKILL)
        psutil.wait_procs(rest, timeout=1)
    keeper.remove_shm(entry.shm)
    keeper.forget(path)
    return f"Cleaned up after {who}, which an earlier crash had left."


def _survivors(tag: str, entry: Entry) -> set[psutil.Process]:
    """Live processes that the entry names or that carry its mark, and their descendants."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended, or belongs to another user
            if keeper.identity(process.pid) in entry.tree or process.environ().get(keeper.TAG) == tag:
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if process.pid != os.getpid() and keeper.identity(process.pid)}
