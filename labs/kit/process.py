"""The one way to start and stop a server: a free port, a readiness wait, a log, and nothing left behind.

Each server runs under a keeper (keeper.py), which stops the server's whole process tree when asked to and
also when this process dies, even by SIGKILL. ``reap`` cleans up after a keeper that was killed. Linux only.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil

from labs.kit import keeper
from labs.kit.diagnose import diagnose
from labs.kit.home import home
from labs.kit.port import HOST, answers, free_port, holder, listener
from labs.kit.show import StatusLine

__all__ = ["Server", "ServerFailed", "reap", "running", "start", "stop_all"]

KEPT_LOGS = 40
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_servers: list[Server] = []


class ServerFailed(RuntimeError):
    """A server did not start or stop; the message has the cause, what to do, and the end of the log."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message, without our stack."""
        return [f"ServerFailed: {self}"]


class Server(AbstractContextManager["Server"]):
    """A server that this process started: a context manager, or call ``stop()``.

    ``url`` is ``http://127.0.0.1:PORT``, ``log`` a Path, ``seconds_to_ready`` None until it is ready,
    ``exit_code`` None while it runs and then as in subprocess (minus the signal's number).
    """

    def __init__(self, name: str, port: int, log: Path, ledger: Path, guard: subprocess.Popen[str]) -> None:
        self.name, self.port, self.url, self.log = name, port, f"http://{HOST}:{port}", log
        self.pid = 0
        self.seconds_to_ready: float | None = None
        self.exit_code: int | None = None
        self._guard, self._ledger, self._owner = guard, ledger, os.getpid()

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


def start(
    command: Sequence[str | Path],
    *,
    name: str,
    env: Mapping[str, str] | None = None,
    ready: str = "/health",
    timeout: float = 240,
    port: int | None = None,
) -> Server:
    """Start ``command`` and return its Server once it is ready.

    ``{port}`` inside a part of the command becomes the port: ``port`` if given, else a free one. ``env`` adds
    to the environment. Ready means HTTP 200 on the path ``ready`` within ``timeout`` seconds. A server of the
    same name that this process started before is stopped first, so that a cell can be run again. Raises
    ServerFailed with the cause, what to do, and the end of the log; nothing is left running then, nor after an
    interrupt.
    """
    for line in reap():
        print(line, flush=True)
    for earlier in [server for server in running() if server.name == name]:
        earlier.stop()
    port = free_port() if port is None else port
    if other := holder(port):
        raise ServerFailed(f"Port {port} is in use by {other}. Stop that, or leave port out for a free one.")
    environment = {**os.environ, **(env or {})}
    parts = [str(part).replace("{port}", str(port)) for part in command]
    if not shutil.which(parts[0], path=environment.get("PATH")):
        raise ServerFailed(f"Command not found: {parts[0]}. Is its environment installed, the path right?")
    server = _launch(parts, environment, name, port)
    _servers.append(server)
    try:
        _wait(server, server.url + ready, timeout)
    except BaseException:
        server.stop(grace=3)
        raise
    return server


def reap() -> list[str]:
    """Clean up after servers whose keeper was killed; say what was done. All others are left alone."""
    return keeper.reap(home("servers"))


def running() -> list[Server]:
    """The servers that this process started and that still run."""
    _servers[:] = [server for server in _servers if server.alive()]
    return list(_servers)


def stop_all() -> None:
    """Stop every server that this process started."""
    for server in running():
        server.stop()


atexit.register(stop_all)


def _launch(command: list[str], env: dict[str, str], name: str, port: int) -> Server:
    stamp = f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"
    label = re.sub(r"[^\w.-]", "_", stamp)
    try:
        log, ledger = home("logs") / f"{label}.log", home("servers") / label
        for old in sorted(log.parent.glob("*.log"), key=os.path.getmtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
        log.write_text(f"$ {' '.join(command)}\n")
    except OSError as error:
        todo = "Free some disk space, or set ENGINEROOM_HOME to another folder."
        raise ServerFailed(f"Cannot write the log of {name}: {error}. {todo}") from error
    with log.open("a") as output:
        guard = subprocess.Popen(
            [sys.executable, "-EP", keeper.__file__, ledger, *command],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Jupyter signals the kernel's process group
        )
    return Server(name, port, log, ledger, guard)


def _wait(server: Server, url: str, timeout: float) -> None:
    line, begin = StatusLine(), time.monotonic()
    try:
        with server._guard.stdout as answer:
            said = answer.readline().strip()
        if not said.isdigit():
            raise _failure(server, f"It could not be run: {said or 'its keeper died'}.", "Check the command.")
        server.pid = int(said)
        while not answers(url):
            elapsed = time.monotonic() - begin
            if not server.alive():
                server.stop()
                raise _failure(server, *diagnose(server.logs(300), server.exit_code))
            if elapsed > timeout:
                what, todo = diagnose(server.logs(300), None)
                raise _failure(server, f"Not ready after {timeout:g} s. {what}", todo)
            line.show(f"{server.name}: starting, {elapsed:.0f} s | {server.logs(1)}")
            time.sleep(0.2)
        family = psutil.Process(server._guard.pid).children(recursive=True)
        if listener(server.port) not in (None, *(process.pid for process in family)):
            what = f"Port {server.port} was taken by {holder(server.port)} before the server had it."
            raise _failure(server, what, "Run the cell again: it picks a new port.")
    except BaseException:
        line.show(f"{server.name}: did not start", last=True)
        raise
    server.seconds_to_ready = time.monotonic() - begin
    line.show(f"{server.name}: ready after {server.seconds_to_ready:.1f} s at {server.url}", last=True)


def _failure(server: Server, what: str, todo: str) -> ServerFailed:
    return ServerFailed(
        f"{server.name} did not start. {what}\nWhat to do: {todo}\n"
        f"Last lines of {server.log}:\n{server.logs(15)}"
    )
