"""Keep one server: start it, watch it, and stop its whole process tree when told to or when its owner dies.

Run by path as ``python -EP keeper.py LEDGER NAME PORT COMMAND...`` (Linux). Stdin is a pipe from the owner: a
number of seconds on it, or its end, means stop. Stdout answers the server's pid, or why it cannot be run. The
exit status is the server's, 128 + N after signal N. The keeper is a child subreaper (prctl(2)): each process
the server ever starts stays a descendant of it, also after setsid or a double fork.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL = 1.0  # seconds between two looks at the tree
GRACE = 3.0  # seconds between SIGTERM and SIGKILL when the owner has died
PATIENCE = 30.0  # seconds that a killed process may need to go, e.g. while a driver frees its memory
TAG = "ENGINEROOM_SERVER"  # environment variable that marks each process of a server

Identity = tuple[int, int]  # pid and start in ticks since boot: unlike psutil's time, no clock step moves it
ShmFile = tuple[str, int]  # path and inode


def identity(pid: int) -> Identity | None:
    """The pid with its start time, or None for a zombie or no process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (pid, int(fields[19]))


def place() -> str:
    """Names this boot and this pid namespace: a pid means something only here."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")


def shm_files() -> set[ShmFile]:
    """What lies in /dev/shm now."""
    return {(entry.path, entry.inode()) for entry in os.scandir("/dev/shm")}


def shm_used_by(pids: Iterable[int]) -> set[ShmFile]:
    """The files in /dev/shm that these processes have mapped or open, as far as they may be read."""
    used: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            used.update(re.findall(r"/dev/shm/.*", Path(f"/proc/{pid}/maps").read_text(errors="replace")))
            used.update(map(os.readlink, Path(f"/proc/{pid}/fd").iterdir()))
    return {file for file in shm_files() if file[0] in used}


def remove_shm(files: set[ShmFile]) -> None:
    """Delete those files that are still the same and used by no process."""
    for path, _ in (files & shm_files()) - shm_used_by(psutil.pids()):
        with suppress(OSError):
            os.unlink(path)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Signal those that still live; psutil looks out for reused pids."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def forget(ledger: Path) -> None:
    """Remove a server's entry from the ledger."""
    for suffix in (".tmp", ".json"):
        ledger.with_suffix(suffix).unlink(missing_ok=True)


class Keeper:
    """One server with its process tree and the /dev/shm files that are its own."""

    def __init__(self, ledger: Path, name: str, port: int) -> None:
        self.ledger = ledger
        self.entry = {"name": name, "port": port, "place": place(), "keeper": identity(os.getpid())}
        self.before = shm_files()
        self.family: list[psutil.Process] = []
        self.shm: set[ShmFile] = set()
        self.noted = ""

    def start(self, command: list[str]) -> None:
        """Start the server; raises OSError when the command cannot be run or the ledger not be written."""
        self.note()
        prctl = ctypes.CDLL(None).prctl
        self.server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # safe: the keeper has one thread
        )

    def note(self) -> None:
        """Write what a later ``reap`` needs if the keeper is killed."""
        tree = sorted(filter(None, (identity(process.pid) for process in self.family)))
        entry = json.dumps(self.entry | {"tree": tree, "shm": sorted(self.shm)})
        if entry != self.noted:
            temporary = self.ledger.with_suffix(".tmp")
            temporary.write_text(entry)
            os.replace(temporary, self.ledger)
            self.noted = entry

    def look(self) -> bool:
        """Note the processes and /dev/shm files of the server, reap its orphans; True if there was a process."""
        self.family = psutil.Process().children(recursive=True)
        self.shm |= shm_used_by(process.pid for process in self.family) - self.before
        psutil.wait_procs([process for process in self.family if process.pid != self.server.pid], timeout=0)
        self.server.poll()
        try:
            self.note()
        except OSError as error:  # a full disk must not end the keeper
            print(f"keeper: cannot update {self.ledger}: {error}", file=sys.stderr, flush=True)
        return bool(self.family)

    def watch(self) -> float:
        """Wait until the server ends, the owner says stop or is gone; return the grace in seconds."""
        owner = os.getppid()
        while self.server.returncode is None and os.getppid() == owner:
            if select.select([sys.stdin], [], [], POLL)[0]:
                return float(sys.stdin.readline() or GRACE)
            self.look()
        return GRACE

    def stop(self, grace: float) -> bool:
        """SIGTERM to the server's group, to what outlives it, then SIGKILL; True when all are gone."""
        self.look()  # see what it has before it dies
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGTERM)
        begin, orphans_told = time.monotonic(), False
        while self.look():
            if time.monotonic() > begin + grace + PATIENCE:
                return False
            if time.monotonic() > begin + grace:
                send(self.family, signal.SIGKILL)
            elif self.server.returncode is not None and not orphans_told:
                send(self.family, signal.SIGTERM)
                orphans_told = True
            time.sleep(0.05)
        return True


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    ledger, name, port, *command = sys.argv[1:]
    keeper = Keeper(Path(ledger), name, int(port))
    try:
        keeper.start(command)
    except OSError as error:
        forget(keeper.ledger)
        print(error)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its owner or its server, not before
    with suppress(BrokenPipeError):  # the owner has died
        os.write(1, f"{keeper.server.pid}\n".encode())
    gone = keeper.stop(keeper.watch())
    remove_shm(keeper.shm)
    if gone:
        forget(keeper.ledger)
    code = keeper.server.returncode or 0
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
