"""The one way to start and stop a server: a free port, a readiness wait, a log, and nothing left behind.

Each server runs under a keeper (keeper.py), which stops the server's whole process tree when asked to and
also when this process dies, even by SIGKILL. ``reap`` cleans up after a keeper that was killed. Linux only.
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
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil

from engineroom.kit import keeper
from engineroom.kit.diagnose import HOST, diagnose, holder, listener
from engineroom.kit.errors import UserError
from engineroom.kit.files import home
from engineroom.kit.status import StatusLine

KEPT_LOGS = 40
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_servers: list[Server] = []


class ServerFailed(UserError, RuntimeError):
    """A server did not start or stop; the message, which IPython shows without our stack, says why."""

    def _render_traceback_(self) -> list[str]:
        return [f"ServerFailed: {self}"]


class Server(AbstractContextManager["Server"]):
    """A server that this process started. Use it as a context manager, or call ``stop()``.

    ``seconds_to_ready`` is None until it is ready, ``exit_code`` while it runs; then as in subprocess.
    """

    def __init__(self, name: str, port: int, command: list[str], env: Mapping[str, str]) -> None:
        self.name, self.port, self.url, self.pid = name, port, f"http://{HOST}:{port}", 0
        self.seconds_to_ready: float | None = None
        self.exit_code: int | None = None
        self._owner = os.getpid()
        stamp = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
        label = re.sub(r"[^\w.-]", "_", f"{name}-{stamp}")
        self.log, self._ledger = home("logs") / f"{label}.log", home("servers") / label
        try:
            for old in sorted(self.log.parent.glob("*.log"), key=os.path.getmtime)[:-KEPT_LOGS]:
                old.unlink(missing_ok=True)
            self.log.write_text(f"$ {' '.join(command)}\n")
        except OSError as error:
            todo = "Free some disk space, or set ENGINEROOM_HOME to another folder."
            raise ServerFailed(f"Cannot write the log of {name}: {error}. {todo}") from error
        with self.log.open("a") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-EP", keeper.__file__, self._ledger, *command],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,  # Jupyter signals the kernel's process group
            )

    def alive(self) -> bool:
        """True while the server's first process runs."""
        with suppress(psutil.NoSuchProcess):
            return self._guard.poll() is None and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def logs(self, n: int = 20) -> str:
        """The last ``n`` lines of the server's output."""
        lines = ANSI.sub("", self.log.read_text(errors="replace")).replace("\r", "\n").split("\n")
        return "\n".join([line.rstrip() for line in lines if line.strip()][-n:])

    def stop(self, grace: float = 10) -> None:
        """Stop the whole tree: SIGTERM, after ``grace`` seconds SIGKILL; return when tree and port are gone.

        May be called again. Raises ServerFailed when a process survives SIGKILL.
        """
        if self.exit_code is not None or os.getpid() != self._owner:  # a fork of the owner is not the owner
            return
        with suppress(OSError, ValueError):
            self._guard.stdin.write(f"{grace}\n")
            self._guard.stdin.close()
        try:
            code = self._guard.wait(grace + keeper.PATIENCE + 5)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            code = self._guard.wait()
        if self._ledger.exists():  # the keeper was killed, or gave up
            said = reap()
            if self._ledger.exists():
                raise ServerFailed(f"{self.name} does not stop. {' '.join(said)}")
        self.exit_code = 128 - code if 128 < code < 192 else code

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.alive() else "stopped"
        return f"<Server {self.name}: {state}, {self.url}, log {self.log}>"


def start(command: Sequence[str | Path], *, name: str, env: Mapping[str, str] | None = None,
          ready: str = "/health", timeout: float = 240, port: int | None = None) -> Server:  # fmt: skip
    """Start ``command`` and return its Server once it is ready: HTTP 200 on the path ``ready``.

    ``{port}`` inside a part of the command becomes ``port``, or a free one; ``env`` adds to the environment. A
    server of the same name that this process started is stopped first, so that a cell can be run again. Raises
    ServerFailed with cause, remedy and the end of the log when it is not ready within ``timeout`` seconds;
    nothing is left running then, nor after an interrupt.
    """
    for line in reap():
        print(line, flush=True)
    for earlier in running():
        if earlier.name == name:
            earlier.stop()
    port = free_port() if port is None else port
    if other := holder(port):
        raise ServerFailed(f"Port {port} is in use by {other}. Stop that, or leave port out for a free one.")
    parts = [str(part).replace("{port}", str(port)) for part in command]
    _servers.append(server := Server(name, port, parts, {**os.environ, **(env or {})}))
    status = StatusLine()
    try:
        if failure := _wait(server, ready, timeout, status):
            what, todo = failure
            log = f"Last lines of {server.log}:\n{server.logs(15)}"
            raise ServerFailed(f"{name} did not start. {what}\nWhat to do: {todo}\n{log}")
    except BaseException:
        status.show(f"{name}: did not start", last=True)
        server.stop(grace=3)
        raise
    status.show(f"{name}: ready after {server.seconds_to_ready:.1f} s at {server.url}", last=True)
    return server


def reap() -> list[str]:
    """Clean up after servers whose keeper was killed; say what was done. All others are left alone."""
    return keeper.reap(home("servers"))


def running() -> list[Server]:
    """The servers that this process started and that still run."""
    _servers[:] = [server for server in _servers if server.alive()]
    return list(_servers)


@atexit.register
def stop_all() -> None:
    """Stop every server that this process started."""
    for server in running():
        server.stop()


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    """True when a GET of ``url`` gets HTTP 200."""
    import httpx  # slow to import

    try:  # never through a proxy: the address is loopback
        return httpx.get(url, trust_env=False, verify=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _wait(server: Server, ready: str, timeout: float, status: StatusLine) -> tuple[str, str] | None:
    """Wait until the server is ready; return None then, else what happened and what to do."""
    begin = time.monotonic()
    with server._guard.stdout as answer:
        said = answer.readline().strip()
    if not said.isdigit():
        todo = "Check the command: is its environment installed, the path right?"
        return f"It could not be run: {said or 'its keeper died'}.", todo
    server.pid = int(said)
    while not answers(server.url + ready):
        elapsed = time.monotonic() - begin
        if not server.alive():
            server.stop()
            return diagnose(server.logs(300), server.exit_code)
        if elapsed > timeout:
            what, todo = diagnose(server.logs(300), None)
            return f"Not ready after {timeout:g} s. {what}", todo
        status.show(f"{server.name}: starting, {elapsed:.0f} s | {server.logs(1)}")
        time.sleep(0.2)
    if listener(server.port) not in (None, *psutil.Process(server._guard.pid).children(recursive=True)):
        what = f"Port {server.port} was taken by {holder(server.port)} before the server had it."
        return what, "Run the cell again: it picks a new port."
    server.seconds_to_ready = time.monotonic() - begin
    return None
