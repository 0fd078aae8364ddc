"""What other processes say on the error stream, kept in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def errors_to(log: Path) -> Iterator[None]:
    """File descriptor 2, also of processes that start inside, goes to `log`; its end is shown if the block fails."""
    sys.stderr.flush()
    before = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    except BaseException:
        print("\n".join(log.read_text(errors="replace").splitlines()[-20:]))
        raise
    finally:
        os.dup2(before, 2)
        os.close(before)
