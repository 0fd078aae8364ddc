"""Start a command with SIGINT ignored, as a shell starts a background job, or with its default handling."""

from __future__ import annotations

import signal
import sys

SET_HANDLER = (
    "import os, signal as s, sys; s.signal(s.SIGINT, s.Handlers(int(sys.argv[1])));"
    " s.signal(s.SIGHUP, s.SIG_DFL); os.execvp(sys.argv[2], sys.argv[2:])"
)


def with_sigint(handler: signal.Handlers, command: list[str]) -> list[str]:
    """Return a command that starts `command` with this handler, whatever this process does at SIGINT.

    Nothing is ignored at SIGHUP, though nohup may have started this process.
    """
    return [sys.executable, "-c", SET_HANDLER, str(int(handler)), *command]
