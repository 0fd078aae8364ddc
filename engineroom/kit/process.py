"""The one way to start and stop a server: a free port, a readiness wait, a log, and nothing left behind.

Each server runs under a keeper (keeper.py), which stops the server's process tree on request, and also when this
process dies, even by SIGKILL. ``reap`` cleans up after a keeper that was killed. Linux only.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import psutil

from engineroom.kit import keeper
from engineroom.kit.diagnose import HOST, diagnose, listening_process, port_holder
from engineroom.kit.errors import UserError
from engineroom.kit.files import home
from engineroom.kit.status import StatusLine
from engineroom.kit.tmpdir import remove_abandoned

ROOT = Path(__file__).parents[2]
MAX_LOGS = 40
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_servers: list[Server] = []


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
                [sys.executable, "-EP", "-c", keeper.START, ROOT, self._ledger, *command],
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
            self.log.write_text(f"$ {' '.join(command)}\n")
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
        lines = ANSI.sub("", self.log.read_text(errors="replace")).replace("\r", "\n").split("\n")
        return "\n".join([line.rstrip() for line in lines if line.strip()][-n:])

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
            messages = reap()
            if self._ledger.exists():
                raise ServerFailed(f"{self.name} does not stop. {' '.join(messages)}")
        self.exit_code = 128 - code if 128 < code < 192 else code

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.alive() else "stopped"
        return f"<Server {self.name}: {state}, {self.url}, log {self.log}>"

    def _wait_until_ready(self, path: str, timeout: float, status: StatusLine) -> tuple[str, str] | None:
        """Return None when the server answers 200 on ``path``, else what happened and what to do."""
        begin = time.monotonic()
        assert self._keeper.stdout is not None
        with self._keeper.stdout as pipe:
            answer = pipe.readline().strip()
        if not answer.isdigit():
            remedy = "Check the command: is its environment installed, is the path right?"
            return f"It could not be run: {answer or 'its keeper died'}.", remedy
        self.pid = int(answer)
        while not responds(self.url + path):
            elapsed = time.monotonic() - begin
            if not self.alive():
                self.stop()
                return diagnose(self.logs(300), self.exit_code)
            if elapsed > timeout:
                what, remedy = diagnose(self.logs(300), None)
                return f"Not ready after {timeout:g} s. {what}", remedy
            status.show(f"{self.name}: starting, {elapsed:.0f} s | {self.logs(1)}")
            time.sleep(0.2)
        family = psutil.Process(self._keeper.pid).children(recursive=True)
        if listening_process(self.port) not in (None, *family):
            what = f"Port {self.port} was taken by {port_holder(self.port)} before the server could bind it."
            return what, "Run the cell again: it picks a new port."
        self.seconds_to_ready = time.monotonic() - begin
        return None


def start(command: Sequence[str | Path], *, name: str, env: Mapping[str, str] | None = None,
          ready: str = "/health", timeout: float = 240, port: int | None = None) -> Server:  # fmt: skip
    """Start ``command`` and return its Server once it is ready: HTTP 200 on the path ``ready``.

    ``{port}`` inside a part of the command becomes ``port``, or a free port. ``env`` is added to the environment. A
    server of the same name that this process started is stopped first, so that a cell can be run again. Raises
    ServerFailed with cause, remedy and the end of the log when the server is not ready within ``timeout`` seconds.
    Nothing is left running then, nor after an interrupt.
    """
    for message in reap():
        print(message, flush=True)
    for server in running():
        if server.name == name:
            server.stop()
    port = free_port() if port is None else port
    if holder := port_holder(port):
        raise ServerFailed(
            f"Port {port} is in use by {holder}. Stop it, or leave out port to get a free one."
        )
    parts = [str(part).replace("{port}", str(port)) for part in command]
    server = Server(name, port, parts, {**os.environ, **(env or {})})
    _servers.append(server)
    status = StatusLine()
    try:
        if failure := server._wait_until_ready(ready, timeout, status):
            what, remedy = failure
            log = f"Last lines of {server.log}:\n{server.logs(15)}"
            raise ServerFailed(f"{name} did not start. {what}\nWhat to do: {remedy}\n{log}")
    except BaseException:
        status.show(f"{name}: did not start", last=True)
        server.stop(grace=3)
        raise
    status.show(f"{name}: ready after {server.seconds_to_ready:.1f} s at {server.url}", last=True)
    return server


def reap() -> list[str]:
    """Clean up after servers whose keeper was killed; return a sentence for each. Other servers are left alone."""
    return keeper.reap(home("servers"))


def reap_all() -> list[str]:
    """As ``reap``, also where the folder of the ledgers is damaged; and remove what killed programs left in TMPDIR.

    Return a sentence for each server and each folder.
    """
    try:
        messages = reap()
    except OSError as error:
        messages = [str(error)]
    messages += keeper.reap_without_ledgers()
    return messages + [f"Removed {folder}, which an earlier crash had left." for folder in remove_abandoned()]


def running() -> list[Server]:
    """Return the servers that this process started and that still run."""
    _servers[:] = [server for server in _servers if server.alive()]
    return list(_servers)


@atexit.register
def stop_all() -> None:
    """Stop every server that this process started."""
    for server in running():
        server.stop()


def free_port() -> int:
    """Return a loopback port that no process uses now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different loopback ports that no process uses now: all are bound before the first is released."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def responds(url: str) -> bool:
    """Return True when a GET of ``url`` is answered with HTTP 200."""
    import httpx  # slow to import

    try:  # trust_env: no proxy for a loopback address; verify: plain HTTP needs no certificates, which load slowly
        return httpx.get(url, trust_env=False, verify=False, timeout=2).status_code == 200  # noqa: S501
    except httpx.TransportError:
        return False
