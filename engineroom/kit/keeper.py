"""The keeper of one server: starts it, watches it, and stops its process tree on request or when its owner dies.

It runs as a process of its own: ``python -c START ROOT LEDGER COMMAND...`` with START from below and ROOT the folder
that holds the package engineroom. Stdin is a pipe from the owner: a number of seconds, or the end of the pipe, means
"stop". On stdout the keeper writes the server's pid, or why the command cannot be run. Its exit status is the
server's, or 128 + N after signal N. It is a child subreaper (prctl(2)), so it stays the ancestor of every process of
the server, even after setsid or a double fork.

LEDGER is a file that the keeper locks while it lives. It lists the server's files in /dev/shm, and its name marks the
environment of the server's processes. ``reap`` reads it to clean up after a keeper that was killed. The server has a
TMPDIR of its own, which is removed with it: vLLM leaves sockets there, and PyTorch leaves the unpacked files of an
engine.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from engineroom.kit import tmpdir
from engineroom.kit.prctl import die_with_parent, set_subreaper
from engineroom.kit.shm import remove_shm, shm_files, shm_used_by

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from engineroom.kit.keeper import main; main()"
POLL_SECONDS = 1.0  # between two scans of the process tree
GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL when the owner has died
KILL_SECONDS = 30.0  # that a killed process may take to end, e.g. while a driver frees its memory
MARK = "ENGINEROOM_SERVER"  # environment variable that holds the ledger's name


def temporary_folder(ledger: Path) -> Path:
    """Return the server's TMPDIR."""
    return tmpdir.server_base() / f"{tmpdir.PREFIX}{ledger.name[-8:]}"


def remove_leftovers(ledger: Path, shm: set[str]) -> None:
    """Delete the files that a stopped server left behind, the ledger last."""
    remove_shm(shm)
    shutil.rmtree(temporary_folder(ledger), ignore_errors=True)
    ledger.unlink(missing_ok=True)


def terminate(find_processes: Callable[[], list[psutil.Process]], grace: float) -> bool:
    """Send SIGTERM to the processes, and SIGKILL after ``grace`` seconds. Return True when no process is left.

    Return False when a process survives SIGKILL for KILL_SECONDS.
    """
    send_signal(find_processes(), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while processes := find_processes():
        now = time.monotonic()
        if now > deadline + KILL_SECONDS:
            return False
        if now > deadline:
            send_signal(processes, signal.SIGKILL)
        time.sleep(0.05)
    return True


def send_signal(processes: Iterable[psutil.Process], signal_number: int) -> None:
    """Signal the processes that are still alive; psutil makes sure that a reused pid is not signalled."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal_number)


def is_keeper(process: psutil.Process) -> bool:
    """Return True when the process is a keeper of this user."""
    with suppress(psutil.Error):
        return START in process.cmdline()
    return False


class Keeper:
    """One server with its ledger. Raises OSError when the command cannot be run or the ledger cannot be created."""

    def __init__(self, ledger: Path, command: list[str]) -> None:
        self.shm_before = shm_files()
        self.shm = set[str]()
        self.ledger_descriptor = tmpdir.create_locked(ledger)
        folder, self.folder_descriptor = tmpdir.create_folder(tmpdir.server_base(), ledger.name[-8:])
        # SPT_NOENV: setproctitle would overwrite the mark in the process's environment
        environment = {MARK: ledger.name, "SPT_NOENV": "1", "TMPDIR": str(folder)}
        self.server = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=die_with_parent,  # safe: the keeper has one thread
        )

    def find_processes(self) -> list[psutil.Process]:
        """Return the server's processes; note their files in /dev/shm and reap the processes that have ended."""
        family = psutil.Process().children(recursive=True)
        self.shm |= shm_used_by(family) - self.shm_before
        psutil.wait_procs([process for process in family if process.pid != self.server.pid], timeout=0)
        self.server.poll()
        try:
            for descriptor in (self.ledger_descriptor, self.folder_descriptor):  # the ledgers may get lost
                os.pwrite(descriptor, "\n".join(self.shm).encode(), 0)  # it only grows
        except OSError as error:  # a full disk must not end the keeper
            print(f"keeper: cannot update its ledger: {error}", file=sys.stderr, flush=True)
        return family

    def watch(self) -> float:
        """Wait until the server ends, or the owner says stop or dies; return the grace in seconds."""
        owner = os.getppid()
        while self.server.returncode is None and os.getppid() == owner:
            if select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
                return float(sys.stdin.readline() or GRACE_SECONDS)
            self.find_processes()
        return GRACE_SECONDS


def reap(folder: Path) -> list[str]:
    """Kill the processes of servers whose keeper is dead and delete their files; return a sentence for each server.

    An entry that is no file, or that this user may not read, is left as it is.
    """
    messages = []
    for ledger in sorted(folder.iterdir()):
        with suppress(OSError), ledger.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the keeper lives
            messages.append(_reap_server(ledger, set(file.read().decode(errors="replace").split("\n"))))
    return messages


def reap_without_ledgers() -> list[str]:
    """As ``reap``, for servers whose ledger is lost: those below this TMPDIR that no keeper watches."""
    marks = {mark for process in psutil.process_iter() if (mark := _mark_of_orphan(process))}
    return [_reap_server(tmpdir.base() / mark, set()) for mark in sorted(marks)]


def _mark_of_orphan(process: psutil.Process) -> str:
    """Return the mark of a server's process that no keeper watches; "" for every other process."""
    with suppress(psutil.Error):  # it has ended, or belongs to another user
        environment = process.environ()
        mark, folder = environment.get(MARK, ""), Path(environment.get("TMPDIR", ""))
        is_ours = mark and folder == tmpdir.server_base() / f"{tmpdir.PREFIX}{mark[-8:]}"
        if is_ours and not any(map(is_keeper, process.parents())):
            return mark
    return ""


def _reap_server(ledger: Path, shm: set[str]) -> str:
    def find_processes() -> list[psutil.Process]:
        processes = _marked_processes(ledger.name)
        shm.update(shm_used_by(processes))
        return processes

    if not terminate(find_processes, grace=0):
        return f"Processes of {ledger.name} do not die; restart the machine."
    remove_leftovers(ledger, shm)
    return f"Cleaned up after {ledger.name}, which an earlier crash had left."


def _marked_processes(mark: str) -> list[psutil.Process]:
    """Return the live processes that carry this mark, and their descendants."""
    processes = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or belongs to another user
            if process.environ().get(MARK) == mark:
                processes |= {process, *process.children(recursive=True)}
    return list(processes - {psutil.Process()})


def main() -> None:
    """Run as the keeper of one server: LEDGER COMMAND..."""
    set_subreaper()
    ledger, command = Path(sys.argv[1]), sys.argv[2:]
    try:
        keeper = Keeper(ledger, command)
    except OSError as error:
        remove_leftovers(ledger, set())
        print(error)
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the keeper ends with its owner or its server, not before
    with suppress(BrokenPipeError):  # the owner has died
        os.write(1, f"{keeper.server.pid}\n".encode())
    if terminate(keeper.find_processes, keeper.watch()):
        remove_leftovers(ledger, keeper.shm)
    code = keeper.server.returncode or 0
    sys.exit(code if code >= 0 else 128 - code)
