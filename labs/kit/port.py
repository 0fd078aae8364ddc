"""Loopback ports: a free one, and who holds one that is not."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

HOST = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def listener(port: int) -> int | None:
    """Pid of the process that listens on ``port``, as far as this user may see it."""
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                return connection.pid
    return None


def holder(port: int) -> str | None:
    """Who keeps ``port`` from being bound, in words; None when it is free. Raises ValueError for no port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return None
        except OverflowError:
            raise ValueError(f"port must be between 1 and 65535, not {port}") from None
        except PermissionError:
            return "the system (ports below 1024 need root)"
        except OSError:
            pid = listener(port)
    with suppress(psutil.Error):
        if pid:
            return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:80]})"
    return "a process that this user may not see"
