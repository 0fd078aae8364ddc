"""Start the server from a notebook or a test; engineroom.kit.process stops it in any case."""

from __future__ import annotations

import sys
from pathlib import Path

from engineroom.kit.process import Server, start


def serve_engine(
    engine_dir: str | Path, *, name: str = "engine", timeout: float = 120, **options: object
) -> Server:
    """Run `engineroom serve` on a free port; returns when it is ready. The server is a context manager.

    `options` are those of the command: max_queue_size=4 becomes `--max_queue_size 4`, and False becomes `--no-…`.
    `timeout`: seconds until the server must be ready. A second call with the same `name` replaces the first server.
    Raises ServerFailed with the reason and the end of the log.
    """
    command = [sys.executable, "-m", "engineroom.openai", str(engine_dir), "--port", "{port}"]
    for option, value in options.items():
        command += [f"--no-{option}"] if value is False else [f"--{option}"]
        command += [] if isinstance(value, bool) else [str(value)]
    return start(command, name=name, timeout=timeout)
