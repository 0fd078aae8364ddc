"""An output directory that is complete or not there: written under another name, locked, renamed at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.checkpoint.errors import CheckpointError

SUFFIX = ".incomplete"


@contextmanager
def output_directory(path: str | Path, needed_bytes: int) -> Iterator[Path]:
    """Yield `<path>.incomplete`, to be filled; it becomes `path` when the block ends without an error.

    After an error or an interrupt it is removed. After a kill it stays, no reader takes it, and the next run replaces
    it. Raises CheckpointError when `path` holds something, when another run is writing it, or the disk is too small.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointError(
            f"{path} exists and is not empty. Choose another --output_dir, or remove it first."
        )
    temporary = path.with_name(path.name + SUFFIX)
    try:
        temporary.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{temporary} cannot be made ({error.strerror}). Choose another --output_dir."
        ) from None
    lock = os.open(temporary, os.O_RDONLY)
    try:
        _take(lock, path)
        _empty(temporary)
        try:
            _room(temporary, needed_bytes)
            yield temporary
            temporary.replace(path)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise _full(path, needed_bytes) from None
            raise
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CheckpointError(f"{path} is being written by another conversion. Wait for it.") from None


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        entry.unlink() if not entry.is_dir() or entry.is_symlink() else shutil.rmtree(entry)


def _room(directory: Path, needed: int) -> None:
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, "disk full")


def _full(path: Path, needed: int) -> CheckpointError:
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"the disk is full: {path} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Nothing was left behind; "
        f"free some space or choose an --output_dir on another disk."
    )
