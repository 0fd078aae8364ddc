"""The one way to start and stop a server: a free port, a readiness wait, a log, and nothing left behind.

Each server runs under a keeper (keeper.py), which stops the server's process tree on request, and also when this
process dies, even by SIGKILL. ``reap`` cleans up after a keeper that was killed. Linux only.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from pathlib import Path

from engineroom.kit import keeper
from engineroom.kit.environment import child_environment
from engineroom.kit.errors import UserError
from engineroom.kit.files import home
from engineroom.kit.limits import too_few_open_files
from engineroom.kit.ports import HOST, free_port, free_ports, port_holder, responds
from engineroom.kit.server import Server, ServerFailed
from engineroom.kit.status import StatusLine
from engineroom.kit.tmpdir import remove_abandoned

__all__ = [
    "HOST",
    "ProgramFailed",
    "Server",
    "ServerFailed",
    "free_port",
    "free_ports",
    "home",
    "reap",
    "reap_all",
    "responds",
    "run",
    "running",
    "start",
    "stop_all",
]
_servers: list[Server] = []


class ProgramFailed(UserError, RuntimeError):
    """A program that ran to its end, or too long. The message says why it failed."""


def run(
    command: Sequence[str | Path], *, name: str, timeout: float, env: Mapping[str, str] | None = None
) -> str:
    """Run ``command`` to its end and return its output; like a server, it ends with this process and leaves nothing.

    Raises ProgramFailed with the cause when it fails or takes longer than ``timeout`` seconds.
    """
    program = Server(name, 0, [str(part) for part in command], child_environment(env))
    try:
        if failure := program.wait_until_ended(timeout):
            raise ProgramFailed(f"{name} failed. {failure[0]}\nWhat to do: {failure[1]}\n{program.excerpt()}")
    finally:
        program.stop(grace=3)
    return program.output()


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
    if problem := too_few_open_files():
        raise ServerFailed(f"{name} was not started. {problem}")
    server = Server(name, port, parts, child_environment(env))
    _servers.append(server)
    status = StatusLine()
    try:
        if failure := server.wait_until_ready(ready, timeout, status):
            what, remedy = failure
            log = f"Last lines of {server.log}:\n{server.excerpt()}"
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
