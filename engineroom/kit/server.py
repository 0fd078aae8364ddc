"""One server, or another program, under its keeper (keeper.py): its log, its end, and why it failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil

from engineroom.kit import keeper
from engineroom.kit.cause import split
from engineroom.kit.diagnose import diagnose, excerpt
from engineroom.kit.errors import UserError
from engineroom.kit.files import home
from engineroom.kit.ports import HOST, listening_process, port_holder, responds
from engineroom.kit.status import StatusLine

ROOT = Path(__file__).parents[2]
MAX_LOGS = 40
MAX_LOG_BYTES = 1 << 22  # of a log that are read


class ServerFailed(UserError, RuntimeError):
    """A server did not start or stop. The message says why; IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ServerFailed: {self}"]


class Server(AbstractContextManager["Server"]):
    """A server that this process started. Use it as a context manager, or call ``stop()``.

    ``seconds_to_ready`` is None until the server is ready. ``exit_code`` is None while the server runs; afterwards it
    follows subprocess.
    """

    def __init__(self, name: str, port: int, command: list[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.pid = 0
        self.seconds_to_ready: float | None = None
        self.exit_code: int | None = None
        self._owner = os.getpid()
        stamp = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
        label = re.sub(r"[^\w.-]", "_", f"{name}-{stamp}")
        self.log = home("logs") / f"{label}.log"
        self._ledger = home("servers") / label
        self._start_log(command)
        with self.log.open("a") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-EP", "-X", "utf8", "-c", keeper.START, ROOT, self._ledger, *command],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,  # Jupyter signals the kernel's process group
            )

    def _start_log(self, command: list[str]) -> None:
        """Delete old logs and begin a new one with the command line."""
        try:
            for log in sorted(self.log.parent.glob("*.log"), key=os.path.getmtime)[:-MAX_LOGS]:
                log.unlink(missing_ok=True)
            self.log.write_text(f"$ {' '.join(command)}\n", "utf-8", "replace")
        except OSError as error:
            remedy = "Free some disk space, or set ENGINEROOM_HOME to another folder."
            raise ServerFailed(f"Cannot write the log of {self.name}: {error}. {remedy}") from error

    def alive(self) -> bool:
        """Return True while the server's first process runs."""
        with suppress(psutil.NoSuchProcess):
            return self._keeper.poll() is None and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def logs(self, n: int = 20) -> str:
        """Return the last ``n`` lines of the server's output, without colours and empty lines."""
        return "\n".join(split(self.output())[-n:])

    def excerpt(self, n: int = 15) -> str:
        """Return the ``n`` lines of the server's output that end at its error, or else its last lines."""
        return excerpt(self.output(), n)

    def output(self) -> str:
        """Return what the server has written, without the beginning of a very long log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - MAX_LOG_BYTES))
            return file.read().decode(errors="replace")

    def stop(self, grace: float = 10) -> None:
        """Stop the process tree: SIGTERM, then SIGKILL after ``grace`` seconds.

        Returns when the processes are gone and the port is free. A second call does nothing. Raises ServerFailed when a
        process survives SIGKILL.
        """
        if self.exit_code is not None or os.getpid() != self._owner:  # a fork of the owner is not the owner
            return
        assert self._keeper.stdin is not None
        with suppress(OSError, ValueError):  # the keeper has ended
            self._keeper.stdin.write(f"{grace}\n")
            self._keeper.stdin.close()
        try:
            code = self._keeper.wait(grace + keeper.KILL_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            code = self._keeper.wait()
        if self._ledger.exists():  # the keeper was killed, or gave up
            messages = keeper.reap(home("servers"))
            if self._ledger.exists():
                raise ServerFailed(f"{self.name} does not stop. {' '.join(messages)}")
        self.exit_code = 128 - code if 128 < code < 192 else code

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.alive() else "stopped"
        return f"<Server {self.name}: {state}, {self.url}, log {self.log}>"

    def _wait_for_pid(self) -> tuple[str, str] | None:
        """Return None when the command runs, else what happened and what to do."""
        assert self._keeper.stdout is not None
        with self._keeper.stdout as pipe:
            answer = pipe.readline().strip()
        if not answer.isdigit():
            remedy = "Check the command: is its environment installed, is the path right?"
            return f"It could not be run: {answer or 'its keeper died'}.", remedy
        self.pid = int(answer)
        return None

    def wait_until_ended(self, timeout: float) -> tuple[str, str] | None:
        """Return None when the command ends with status 0, else what happened and what to do."""
        if failure := self._wait_for_pid():
            return failure
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout)
        is_late = self._keeper.poll() is None
        self.stop(grace=3)
        if is_late:
            return f"It took longer than {timeout:g} s.", "Give it less work, or a larger timeout."
        return diagnose(self.output(), self.exit_code) if self.exit_code else None

    def wait_until_ready(self, path: str, timeout: float, status: StatusLine) -> tuple[str, str] | None:
        """Return None when the server answers 200 on ``path``, else what happened and what to do."""
        begin = time.monotonic()
        if failure := self._wait_for_pid():
            return failure
        while not responds(self.url + path):
            elapsed = time.monotonic() - begin
            if not self.alive():
                self.stop()
                return diagnose(self.output(), self.exit_code)
            if elapsed > timeout:
                what, remedy = diagnose(self.output(), None)
                return f"Not ready after {timeout:g} s. {what}", remedy
            status.show(f"{self.name}: starting, {elapsed:.0f} s | {self.logs(1)}")
            time.sleep(0.2)
        family = psutil.Process(self._keeper.pid).children(recursive=True)
        if listening_process(self.port) not in (None, *family):
            what = f"Port {self.port} was taken by {port_holder(self.port)} before the server could bind it."
            return what, "Run the cell again: it picks a new port."
        self.seconds_to_ready = time.monotonic() - begin
        return None
