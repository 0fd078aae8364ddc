"""Loopback ports: a free one, who holds one that is not, and whether a server answers there."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

HOST = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.create_server((HOST, 0)) as probe:
        return probe.getsockname()[1]


def listener(port: int) -> int | None:
    """Pid of the process that listens on ``port``, as far as this user may see it."""
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return connection.pid
    return None


def holder(port: int) -> str | None:
    """Who keeps ``port`` from being bound, in words; None when it is free. Raises OverflowError for no port."""
    try:
        socket.create_server((HOST, port)).close()
        return None
    except OSError as error:
        unknown = f"a process that this user may not see ({error.strerror})"
    with suppress(psutil.Error):
        if pid := listener(port):
            return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return unknown


def answers(url: str) -> bool:
    """True when a GET of ``url`` gets HTTP 200."""
    import httpx  # slow to import

    try:  # never through a proxy: the address is loopback
        return httpx.get(url, trust_env=False, verify=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
