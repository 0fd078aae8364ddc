"""Temporary folders that suit their contents: a socket's path is short, a program needs the right to be executed.

TMPDIR may have 100 characters on a batch system, be mounted noexec on a hardened one, or have spaces. Then another of
the usual places is used.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engineroom.kit.errors import UserError

SOCKET_PATH_BYTES = 107  # unix(7): sun_path has 108, and the last is 0
PLAIN = re.compile(r"[\w./+-]+", re.ASCII)  # what no shell and no compiler reads in another way
PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # tried after TMPDIR


class TemporaryFolderError(UserError, OSError):
    """No temporary folder suits; the message says what is wrong with each, and what to set TMPDIR to."""


@dataclass(frozen=True)
class Requirements:
    """What a temporary folder must allow.

    `executable`: programs and libraries in it can be loaded. `plain`: its path is letters, digits and ./_+- only.
    `path_bytes`: the longest path of a file in it, including `name_bytes` for what is added to the folder's path.
    """

    executable: bool = False
    plain: bool = False
    name_bytes: int = 0
    path_bytes: int = 4096
    free_bytes: int = 1 << 20

    def obstacle(self, folder: Path) -> str | None:
        """Say why the folder does not suit; None when it does."""
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            return "you may not write to it"
        if len(os.fsencode(folder)) + self.name_bytes > self.path_bytes:
            return f"its path is longer than {self.path_bytes - self.name_bytes} bytes"
        if self.plain and not PLAIN.fullmatch(str(folder)):
            return "its path has spaces, quotes or letters beyond ASCII, which compilers misread"
        if self.executable and os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return "it is mounted noexec, so no program in it can run"
        if shutil.disk_usage(folder).free < self.free_bytes:
            return f"it has less than {self.free_bytes >> 20} MiB free"
        return None


def temporary_base(requirements: Requirements, first: Path | None = None) -> Path:
    """Return the first suitable folder of `first` (default: TMPDIR), PLACES and XDG_RUNTIME_DIR.

    Raises TemporaryFolderError.
    """
    folders = [str(first or os.environ.get("TMPDIR", "")), *PLACES, os.environ.get("XDG_RUNTIME_DIR")]
    obstacles = dict[str, str]()
    for folder in filter(None, folders):
        obstacle = requirements.obstacle(Path(folder).absolute())
        if obstacle is None:
            return Path(folder).absolute()
        obstacles[folder] = obstacle
    reasons = "; ".join(f"{folder}: {obstacle}" for folder, obstacle in obstacles.items())
    raise TemporaryFolderError(
        f"No temporary folder suits. {reasons}. Set TMPDIR to one without these faults."
    )


@contextmanager
def temporary_folder(requirements: Requirements, prefix: str = "engineroom-") -> Iterator[Path]:
    """Yield a private folder in `temporary_base`, which is removed at the end. Raises TemporaryFolderError."""
    base = temporary_base(requirements)
    with tempfile.TemporaryDirectory(dir=base, prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def tmpdir_for(requirements: Requirements) -> Iterator[None]:
    """Let TMPDIR name a suitable folder within the block, for libraries that read it. Raises TemporaryFolderError."""
    current = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(temporary_base(requirements))
    try:
        yield
    finally:
        if current is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = current
