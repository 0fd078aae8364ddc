"""The one way to start and stop a server: a free port, a readiness wait, a log, and nothing left behind.

Each server runs under a keeper (keeper.py), which stops the server's whole process tree when asked to and
also when this process dies, even by SIGKILL. A ledger in the data home covers the keeper's own death.
Linux only.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from labs.kit import keeper
from labs.kit.diagnose import diagnose
from labs.kit.home import home
from labs.kit.ledger import elsewhere, place, reap
from labs.kit.port import HOST, free_port, holder, listener
from labs.kit.statusline import StatusLine

__all__ = ["Server", "ServerFailed", "reap", "running", "start", "stop_all"]

KEPT_LOGS = 40
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_servers: list[Server] = []


class ServerFailed(RuntimeError):
    """A server did not start or stop; the message has the cause, what to do, and the end of the log."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message, without our stack."""
        return [f"ServerFailed: {self}"]


class Server:
    """A server that this process started: a context manager, or call ``stop()``.

    ``url`` is ``http://127.0.0.1:PORT``, ``log`` a Path, ``seconds_to_ready`` None until it is ready,
    ``exit_code`` None while it runs and then as in subprocess (minus the signal's number).
    """

    def __init__(self, name: str, port: int, log: Path, guard: subprocess.Popen[str]) -> None:
        self.name, self.port, self.log = name, port, log
        self.url = f"http://{HOST}:{port}"
        self.pid = 0
        self.seconds_to_ready: float | None = None
        self.exit_code: int | None = None
        self._guard, self._owner, self._stopped = guard, os.getpid(), False
        self._begin = time.monotonic()

    def alive(self) -> bool:
        """True while the server's first process runs."""
        return self._guard.poll() is None and keeper.stat(self.pid) is not None

    def logs(self, n: int = 20) -> str:
        """The last ``n`` lines of the server's output."""
        lines = ANSI.sub("", self.log.read_text(errors="replace")).replace("\r", "\n").split("\n")
        return "\n".join([line.rstrip() for line in lines if line.strip()][-n:])

    def stop(self, grace: float = 10) -> None:
        """Stop the whole tree: SIGTERM, after ``grace`` seconds SIGKILL; return when tree and port are gone.

        May be called again. Raises ServerFailed when a process survives SIGKILL.
        """
        if self._stopped or os.getpid() != self._owner:  # a fork of the owner is not the owner
            return
        with suppress(OSError, ValueError):
            self._guard.stdin.write(f"{grace}\n")
            self._guard.stdin.close()
        self._finish(grace + keeper.PATIENCE + 5)
        deadline = time.monotonic() + 2  # later it is held by a stranger
        while holder(self.port) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._stopped = True

    def _finish(self, timeout: float) -> None:
        """Wait until the keeper has cleaned up, and take the exit code from it."""
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        report = {} if self._guard.stdout.closed else json.loads(self._guard.stdout.read() or "{}")
        self._guard.stdout.close()
        self.exit_code = report.get("exit", self.exit_code)
        if self._guard.returncode or report.get("left"):  # the keeper itself was killed, or gave up
            reap()
            if rest := [pid for pid, _ in report.get("left", []) if keeper.stat(pid)]:
                raise ServerFailed(
                    f"{self.name} does not stop: processes {rest} survive SIGKILL. Restart the machine."
                )

    def __enter__(self) -> Self:
        return self

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
    ready: str | Callable[[Server], bool] = "/health",
    timeout: float = 240,
    port: int | None = None,
) -> Server:
    """Start ``command`` and return its Server once it is ready.

    ``{port}`` inside a part of the command becomes the port: ``port`` if given, else a free one. ``env`` adds
    to the environment. Ready means HTTP 200 on the path ``ready``, or that ``ready(server)`` is true, within
    ``timeout`` seconds. A server of the same name that this process started before is stopped first, so that
    a cell can be run again. Raises ServerFailed with the cause, what to do, and the end of the log; nothing
    is left running then, nor after an interrupt.
    """
    for line in reap():
        print(line, flush=True)
    for earlier in [server for server in running() if server.name == name]:
        earlier.stop()
    port = free_port() if port is None else port
    if other := holder(port):
        raise ServerFailed(
            f"Port {port} is in use by {other}. Stop that, or leave port out to get a free one."
        )
    environment = {**os.environ, **(env or {})}
    parts = [str(part).replace("{port}", str(port)) for part in command]
    if not shutil.which(parts[0], path=environment.get("PATH")):
        raise ServerFailed(
            f"Command not found: {parts[0]}. Is its environment installed, and the path right?"
        )
    server = _launch(parts, environment, name, port)
    try:
        _servers.append(server)
        _handshake(server, parts)
        _wait(server, ready, timeout)
    except BaseException:
        server.stop(grace=3)
        raise
    return server


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
    tag = uuid.uuid4().hex[:12]
    try:
        safe = re.sub(r"[^\w.-]", "_", name)
        log = home("logs") / f"{safe}-{time.strftime('%Y%m%dT%H%M%S')}-{tag[:4]}.log"
        for old in sorted(log.parent.glob("*.log"), key=os.path.getmtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
        log.write_text(f"$ {' '.join(command)}\n")
        ledger = home("servers") / f"{tag}.json"
    except OSError as error:
        raise ServerFailed(
            f"Cannot write the log of {name}: {error}. "
            "Free some disk space, or set ENGINEROOM_HOME to another folder."
        ) from error
    request = {"id": tag, "name": name, "port": port, "place": place(), "owner": keeper.identity(os.getpid())}
    request |= {"command": command, "env": env, "ledger": str(ledger)}
    with log.open("a") as output:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Jupyter signals the kernel's process group
        )
    server = Server(name, port, log, guard)
    guard.stdin.write(json.dumps(request) + "\n")
    guard.stdin.flush()
    return server


def _handshake(server: Server, command: list[str]) -> None:
    answer = json.loads(server._guard.stdout.readline() or '{"error": "its keeper died; see the log"}')
    if "error" in answer:
        raise _failure(server, f"{command[0]} could not be run: {answer['error']}.", "Check the command.")
    server.pid = answer["pid"]


def _answers(url: str) -> bool:
    import httpx  # slow to import

    try:  # never through a proxy: the address is loopback
        return httpx.get(url, trust_env=False, verify=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _wait(server: Server, ready: str | Callable[[Server], bool], timeout: float) -> None:
    line = StatusLine()
    try:
        while True:
            elapsed = time.monotonic() - server._begin
            if not server.alive():
                server._finish(keeper.GRACE + keeper.PATIENCE + 5)
                raise _failure(server, *diagnose(server.logs(300), server.exit_code or 0))
            if ready(server) if callable(ready) else _answers(server.url + ready):
                break
            if elapsed > timeout:
                what, todo = diagnose(server.logs(300), None)
                raise _failure(server, f"Not ready after {timeout:g} s. {what}", todo)
            line.show(f"{server.name}: starting, {elapsed:.0f} s | {server.logs(1)}")
            time.sleep(0.2)
        _check_ours(server)
    except BaseException:
        line.done(f"{server.name}: did not start")
        raise
    server.seconds_to_ready = time.monotonic() - server._begin
    line.done(f"{server.name}: ready after {server.seconds_to_ready:.1f} s at {server.url}")


def _check_ours(server: Server) -> None:
    """Another program may have taken the port in the moment between our choice and the server's bind."""
    pid = listener(server.port)
    if pid and pid not in {one for one, _ in keeper.descendants([server._guard.pid])}:
        what = f"Port {server.port} was taken by {holder(server.port)}."
        raise _failure(server, what, "Run the cell again: it picks a new port.")


def _failure(server: Server, what: str, todo: str) -> ServerFailed:
    others = elsewhere() if "memory" in what or "SIGKILL" in what else []
    parts = [f"{server.name} did not start. {what}", f"What to do: {todo}"]
    parts += [f"Also running: {', '.join(others)}."] if others else []
    parts += [f"Last lines of {server.log}:", server.logs(15)]
    return ServerFailed("\n".join(parts))
