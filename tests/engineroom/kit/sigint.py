"""A command line that begins with SIGINT as a shell left it: ignored in a script's background, else as its default."""

from __future__ import annotations

import signal
import sys

SET = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.Handlers(int(sys.argv[1])));"
    " os.execvp(sys.argv[2], sys.argv[2:])"
)


def with_sigint(handler: signal.Handlers, line: list[str]) -> list[str]:
    """`line` does not inherit what this process does at SIGINT."""
    return [sys.executable, "-c", SET, str(int(handler)), *line]
