"""Ports on the loopback address: free ones, and what listens on the others."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import psutil

from engineroom.kit.network import http_get

HOST = "127.0.0.1"


def listening_process(port: int) -> psutil.Process | None:
    """Return the process that listens on ``port``; None when there is none or this user may not see it."""
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or connection.pid is None:
            continue
        if connection.laddr and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    return None


def port_holder(port: int) -> str | None:
    """Describe the process that keeps ``port`` from being bound; None when the port is free.

    Raises OverflowError when ``port`` is no port number.
    """
    try:
        socket.create_server((HOST, port)).close()
        return None
    except OSError as error:
        unknown = f"a process that this user may not see ({error.strerror})"
    with suppress(psutil.Error):
        if process := listening_process(port):
            return f"process {process.pid} ({' '.join(process.cmdline())[:80]})"
    return unknown


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

    try:
        return http_get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
