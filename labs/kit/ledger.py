"""The list of servers that run, one file each, and the clean-up of those whose keeper has died."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from labs.kit import keeper
from labs.kit.home import home, set_aside

DAY = 86_400  # seconds
FIELDS = {"id", "name", "port", "place", "owner", "keeper", "tree", "shm"}


def place() -> str:
    """Names this boot and this pid namespace: a pid of the ledger means something only here."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")


def _read(path: Path, said: list[str]) -> dict | None:
    try:
        entry = json.loads(path.read_text())
        if not isinstance(entry, dict) or not entry.keys() >= FIELDS:
            raise ValueError("fields are missing")
        for pid, start in [entry["owner"], entry["keeper"], *entry["tree"]]:
            if not isinstance(pid, int) or not isinstance(start, int):
                raise TypeError("a process is not a pair of numbers")
        entry["shm"] = {(str(name), int(inode)) for name, inode in entry["shm"]}
        return entry
    except FileNotFoundError:  # its keeper has just removed it
        return None
    except (ValueError, TypeError) as error:
        said.append(f"The server ledger {path} was unreadable ({error}); moved it to {set_aside(path).name}.")
        return None


def _entries(said: list[str]) -> list[tuple[Path, dict]]:
    """Readable entries of this boot; those of another boot or container go once they are a day old."""
    here, found = place(), []
    for path in sorted(home("servers").glob("*.json")):
        if entry := _read(path, said):
            if entry["place"] == here:
                found.append((path, entry))
            elif time.time() - path.stat().st_mtime > DAY:
                path.unlink(missing_ok=True)
    return found


def _lives(process: list[int]) -> bool:
    return keeper.identity(process[0]) == tuple(process)


def elsewhere() -> list[str]:
    """Servers that other processes of this user run here: "name on port N (started by process P)"."""
    return [
        f"{entry['name']} on port {entry['port']} (started by process {entry['owner'][0]})"
        for _, entry in _entries([])
        if _lives(entry["keeper"]) and entry["owner"][0] != os.getpid()
    ]


def _marked(tag: str) -> set[keeper.Identity]:
    """Processes whose environment carries the tag of a server."""
    found = set()
    for pid, (_, start) in keeper.processes().items():
        try:
            if f"{keeper.TAG}={tag}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add((pid, start))
        except OSError:  # it ended, or belongs to another user
            pass
    return found


def _kill_rest(entry: dict) -> bool:
    """Kill what an entry's dead keeper left; True when nothing of it is alive."""
    deadline = time.monotonic() + keeper.PATIENCE
    while True:
        rest = {tuple(process) for process in entry["tree"] if _lives(process)} | _marked(entry["id"])
        rest |= keeper.descendants(pid for pid, _ in rest)
        rest = {process for process in rest if process[0] != os.getpid()}
        if not rest or time.monotonic() > deadline:
            return not rest
        for pid, _ in rest:
            entry["shm"] |= {file for file in keeper.shm_files() if file[0] in keeper.shm_used_by(pid)}
        keeper.send(rest, signal.SIGKILL)
        time.sleep(0.05)


def reap() -> list[str]:
    """Kill what servers with a dead keeper left and delete their /dev/shm files; say what was done.

    A server whose keeper lives is not touched: that keeper watches its owner.
    """
    said: list[str] = []
    for path, entry in _entries(said):
        if _lives(entry["keeper"]):
            continue
        if _kill_rest(entry):
            keeper.remove_shm(entry["shm"])
            path.with_suffix(".tmp").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            said.append(
                f"Cleaned up after {entry['name']} (port {entry['port']}), which an earlier crash had left."
            )
        else:
            said.append(
                f"Processes of {entry['name']} (port {entry['port']}) do not die; restart the machine."
            )
    return said
