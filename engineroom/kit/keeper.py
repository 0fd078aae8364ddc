"""Keep one server: start it, watch it, and stop its whole process tree when told to or when its owner dies.

Run by path as ``python -EP keeper.py LEDGER COMMAND...``. Stdin is a pipe from the owner: a number of seconds on
it, or its end, means stop. Stdout answers the server's pid, or why it cannot be run. The exit status is the
server's, 128 + N after signal N. As a child subreaper (prctl(2)) it stays the ancestor of each process of the
server, also after setsid or a double fork. When it was killed, ``reap`` needs LEDGER: a file that it locks while
it lives, that lists the server's files in /dev/shm, and whose name marks the environment of its processes. TMPDIR of
the server is a folder of its own, removed with it: vLLM leaves sockets there, PyTorch what it unpacked of an engine.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from engineroom.kit.prctl import become_subreaper, die_with_parent

POLL = 1.0  # seconds between two looks at the tree
GRACE = 3.0  # seconds between SIGTERM and SIGKILL when the owner has died
PATIENCE = 30.0  # seconds that a killed process may need to go, e.g. while a driver frees its memory
MARK = "ENGINEROOM_SERVER"  # environment variable with the ledger's name


def shm_files() -> set[str]:
    """``<inode> <path>`` of what lies in /dev/shm now."""
    return {f"{entry.inode()} {entry.path}" for entry in os.scandir("/dev/shm")}


def shm_used_by(processes: Iterable[psutil.Process]) -> set[str]:
    """The files in /dev/shm that these processes have mapped or open, as far as they may be read."""
    used: set[str] = set()
    # by inode: glibc makes a named semaphore under another name, which /proc goes on to show
    for folder in [Path(f"/proc/{process.pid}") for process in processes]:
        with suppress(OSError):
            maps = (folder / "maps").read_text(errors="replace")
            used.update(re.findall(r"(\d+) +/dev/shm/", maps))
        for link in folder.glob("fd/*"):
            with suppress(OSError):
                if os.readlink(link).startswith("/dev/shm/"):
                    used.add(str(link.stat().st_ino))
    return {file for file in shm_files() if file.partition(" ")[0] in used}


def remove_shm(files: set[str]) -> None:
    """Delete those files that are still the same and used by no process."""
    for file in (files & shm_files()) - shm_used_by(psutil.process_iter()):
        with suppress(OSError):
            os.unlink(file.partition(" ")[2])


def scratch(ledger: Path) -> Path:
    """The server's TMPDIR; short, as the path of a socket may have 107 bytes."""
    return Path(tempfile.gettempdir(), f"engineroom-{ledger.name[-8:]}")


def forget(ledger: Path, shm: set[str]) -> None:
    """Delete what a server that is gone has left, its ledger last."""
    remove_shm(shm)
    shutil.rmtree(scratch(ledger), ignore_errors=True)
    ledger.unlink(missing_ok=True)


def end(look: Callable[[], list[psutil.Process]], grace: float) -> bool:
    """SIGTERM to all that ``look`` finds, after ``grace`` seconds SIGKILL; True when it finds none any more."""
    send(look(), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while rest := look():
        if time.monotonic() > deadline + PATIENCE:
            return False
        if time.monotonic() > deadline:
            send(rest, signal.SIGKILL)
        time.sleep(0.05)
    return True


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Signal those that still live; psutil looks out for reused pids."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def locked(ledger: Path) -> int:
    """Make the ledger and lock it; return its descriptor, which no child inherits."""
    while True:
        file = os.open(ledger, os.O_WRONLY | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:  # a reap may have removed it before it was locked
            return file
        os.close(file)


class Keeper:
    """One server and what is its own; raises OSError when it cannot be run or the ledger not be made."""

    def __init__(self, ledger: Path, command: list[str]) -> None:
        self.before, self.shm = shm_files(), set[str]()
        self.file = locked(ledger)
        scratch(ledger).mkdir(mode=0o700)
        self.server = subprocess.Popen(
            command,
            # setproctitle would overwrite the mark
            env={**os.environ, MARK: ledger.name, "SPT_NOENV": "1", "TMPDIR": str(scratch(ledger))},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=die_with_parent,  # safe: the keeper has one thread
        )

    def look(self) -> list[psutil.Process]:
        """The server's processes; notes their files in /dev/shm and reaps those that have ended."""
        family = psutil.Process().children(recursive=True)
        self.shm |= shm_used_by(family) - self.before
        psutil.wait_procs([process for process in family if process.pid != self.server.pid], timeout=0)
        self.server.poll()
        try:
            os.pwrite(self.file, "\n".join(self.shm).encode(), 0)  # never less than was there before
        except OSError as error:  # a full disk must not end the keeper
            print(f"keeper: cannot update its ledger: {error}", file=sys.stderr, flush=True)
        return family

    def watch(self) -> float:
        """Wait until the server ends, the owner says stop or is gone; return the grace in seconds."""
        owner = os.getppid()
        while self.server.returncode is None and os.getppid() == owner:
            if select.select([sys.stdin], [], [], POLL)[0]:
                return float(sys.stdin.readline() or GRACE)
            self.look()
        return GRACE


def reap(folder: Path) -> list[str]:
    """Kill what servers with a dead keeper left, delete their /dev/shm files; say what was done."""
    said = []
    for ledger in sorted(folder.iterdir()):
        with suppress(FileNotFoundError, BlockingIOError), ledger.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the keeper lives
            said.append(_clean(ledger, set(file.read().decode(errors="replace").split("\n"))))
    return said


def _clean(ledger: Path, shm: set[str]) -> str:
    def look() -> list[psutil.Process]:
        rest = _marked(ledger.name)
        shm.update(shm_used_by(rest))
        return rest

    if not end(look, grace=0):
        return f"Processes of {ledger.name} do not die; restart the machine."
    forget(ledger, shm)
    return f"Cleaned up after {ledger.name}, which an earlier crash had left."


def _marked(name: str) -> list[psutil.Process]:
    """Live processes that carry this mark, and their descendants."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended, or belongs to another user
            if process.environ().get(MARK) == name:
                found |= {process, *process.children(recursive=True)}
    return list(found - {psutil.Process()})


def main() -> None:
    become_subreaper()
    ledger, command = Path(sys.argv[1]), sys.argv[2:]
    try:
        keeper = Keeper(ledger, command)
    except OSError as error:
        forget(ledger, set())
        print(error)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its owner or its server, not before
    with suppress(BrokenPipeError):  # the owner has died
        os.write(1, f"{keeper.server.pid}\n".encode())
    gone = end(keeper.look, keeper.watch())
    if gone:
        forget(ledger, keeper.shm)
    code = keeper.server.returncode or 0
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
