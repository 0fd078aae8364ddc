"""Start the server from a notebook or a test; the process kit stops it, whatever happens."""

from __future__ import annotations

import sys
from pathlib import Path

from engineroom.kit.process import Server, start


def serve_engine(
    engine_dir: str | Path, *, name: str = "engine", timeout: float = 120, **options: object
) -> Server:
    """`engineroom serve` on a free port, ready to answer; a context manager.

    `options` are those of the command: max_queue_size=4 becomes `--max_queue_size 4`, False `--no-…`. A second call
    replaces the first server of that `name`. Raises ServerFailed with the reason and the end of the log.
    """
    line = [sys.executable, "-m", "engineroom.openai", str(engine_dir), "--port", "{port}"]
    for option, value in options.items():
        line += [f"--no-{option}"] if value is False else [f"--{option}"]
        line += [] if isinstance(value, bool) else [str(value)]
    return start(line, name=name, timeout=timeout)
