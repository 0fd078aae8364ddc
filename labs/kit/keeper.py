"""Keep one server: start it, watch it, and stop its whole process tree when told to or when its owner dies.

Run by path as ``python -I -S keeper.py`` (Linux, standard library only). The owner writes one JSON line to
stdin (id, name, port, place, owner, command, env, ledger) and keeps stdin open; a number of seconds on stdin,
or its end, means stop. Stdout answers ``{"pid": ...}`` or ``{"error": ...}``, at the end ``{"exit": code}``.
The keeper is a child subreaper (prctl(2)): each process the server ever starts stays a descendant of it,
also after setsid or a double fork.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL = 1.0  # seconds between two looks at the tree
GRACE = 3.0  # seconds between SIGTERM and SIGKILL when the owner has died
PATIENCE = 30.0  # seconds that a killed process may need to go, e.g. while a driver frees its memory
TAG = "ENGINEROOM_SERVER"  # environment variable that marks each process of a server

Identity = tuple[int, int]  # pid and start time in clock ticks since boot: safe against reuse of the pid
ShmFile = tuple[str, int]  # path and inode


def stat(pid: int) -> tuple[int, int] | None:
    """Parent's pid and start time; None for a zombie or no process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


def processes() -> dict[int, tuple[int, int]]:
    """Each live process: pid -> (parent's pid, start time)."""
    found = {int(name): stat(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: entry for pid, entry in found.items() if entry}


def identity(pid: int) -> Identity | None:
    """The pid with its start time, or None when there is no such live process."""
    entry = stat(pid)
    return (pid, entry[1]) if entry else None


def descendants(roots: Iterable[int]) -> set[Identity]:
    """Children, grandchildren and so on of ``roots``, without the roots."""
    table = processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        new = [pid for pid in children.get(todo.pop(), []) if pid not in found]
        found.update(new)
        todo.extend(new)
    return {(pid, table[pid][1]) for pid in found}


def send(targets: Iterable[Identity], number: int) -> None:
    """Signal those targets that are still the same process."""
    for target in targets:
        if identity(target[0]) == tuple(target):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(target[0], number)


def shm_used_by(pid: int) -> set[str]:
    """Paths in /dev/shm that a process has mapped or open; empty when it may not be read."""
    used = set()
    try:
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            if "/dev/shm/" in line:
                used.add(line.split(maxsplit=5)[5])
        for handle in os.scandir(f"/proc/{pid}/fd"):
            used.add(os.readlink(handle.path))
    except OSError:
        pass
    return {path for path in used if path.startswith("/dev/shm/") and not path.endswith(" (deleted)")}


def shm_files() -> set[ShmFile]:
    """What lies in /dev/shm now."""
    return {(entry.path, entry.inode()) for entry in os.scandir("/dev/shm")}


def remove_shm(files: Iterable[ShmFile]) -> list[str]:
    """Delete those files that are still the same, ours, and used by no process; return their paths."""
    wanted = set(files) & shm_files()
    if wanted:
        in_use = set().union(*(shm_used_by(pid) for pid in processes()))
        wanted = {(path, inode) for path, inode in wanted if path not in in_use}
    removed = []
    for path, _ in sorted(wanted):
        try:
            if os.stat(path).st_uid == os.geteuid():
                os.unlink(path)
                removed.append(path)
        except OSError:
            pass
    return removed


class Keeper:
    def __init__(self, request: dict) -> None:
        self.request = request
        self.ledger = Path(request["ledger"])
        self.before = shm_files()
        self.shm: set[ShmFile] = set()
        self.tree: set[Identity] = set()
        self.exit_code: int | None = None
        self.child = 0

    def start(self) -> None:
        """Start the server; raises OSError when the command cannot be run or the ledger not be written."""
        self.write_ledger()
        libc = ctypes.CDLL(None, use_errno=True)

        def die_with_keeper() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self.server = subprocess.Popen(  # kept: a collected Popen reaps the child behind our back
            self.request["command"],
            env={**self.request["env"], TAG: self.request["id"]},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            start_new_session=True,
            preexec_fn=die_with_keeper,  # safe: the keeper has one thread
        )
        self.child = self.server.pid

    def write_ledger(self) -> None:
        entry = {key: self.request[key] for key in ("id", "name", "port", "place", "owner")}
        entry |= {"keeper": identity(os.getpid()), "tree": sorted(self.tree), "shm": sorted(self.shm)}
        temporary = self.ledger.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(entry))
            os.replace(temporary, self.ledger)
        finally:
            temporary.unlink(missing_ok=True)

    def look(self) -> None:
        """Reap zombies and note which processes and /dev/shm files belong to the server."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    self.exit_code = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            pass
        tree = descendants([os.getpid()])
        paths = set().union(*(shm_used_by(pid) for pid, _ in tree))
        shm = self.shm | {file for file in shm_files() - self.before if file[0] in paths}
        if (tree, shm) != (self.tree, self.shm):
            self.tree, self.shm = tree, shm
            try:
                self.write_ledger()
            except OSError as error:  # a full disk must not end the keeper
                print(f"keeper: cannot update {self.ledger}: {error}", file=sys.stderr, flush=True)

    def watch(self) -> float:
        """Wait until the server ends, the owner says stop or is gone; return the grace in seconds."""
        while self.exit_code is None:
            if select.select([0], [], [], POLL)[0]:
                return float(os.read(0, 64).split(b"\n")[0] or GRACE)
            self.look()
            if identity(self.request["owner"][0]) != tuple(self.request["owner"]):
                return GRACE
        return GRACE

    def stop(self, grace: float) -> bool:
        """SIGTERM to the server's group, to what outlives it, then SIGKILL; True when all are gone."""
        self.look()
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGTERM)
        begin, orphans_told = time.monotonic(), False
        while (self.tree or self.exit_code is None) and time.monotonic() < begin + grace + PATIENCE:
            if time.monotonic() > begin + grace:
                send(self.tree, signal.SIGKILL)
            elif self.exit_code is not None and not orphans_told:
                send(self.tree, signal.SIGTERM)
                orphans_told = True
            time.sleep(0.05)
            self.look()
        return not self.tree


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = Keeper(json.loads(os.fdopen(0, "rb", buffering=0, closefd=False).readline()))

    def answer(**message: object) -> None:
        with suppress(BrokenPipeError):  # the owner has died
            print(json.dumps(message), flush=True)

    try:
        keeper.start()
    except OSError as error:
        keeper.ledger.unlink(missing_ok=True)
        answer(error=str(error))
        return
    answer(pid=keeper.child)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        grace = keeper.watch()
    except SystemExit:
        grace = GRACE
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gone = keeper.stop(grace)
    remove_shm(keeper.shm)
    if gone:
        keeper.ledger.unlink(missing_ok=True)
    answer(exit=keeper.exit_code, left=sorted(keeper.tree))


if __name__ == "__main__":
    main()
