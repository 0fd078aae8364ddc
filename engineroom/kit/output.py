"""An output directory that is complete or not there: written under another name, locked, renamed at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engineroom.kit.errors import UserError

SUFFIX = ".incomplete"


class OutputError(UserError, ValueError):
    """An output directory that cannot be written; the message says why and what to do."""


@contextmanager
def output_directory(path: str | Path, needed_bytes: int) -> Iterator[Path]:
    """Yield `<path>.incomplete`, to be filled; it becomes `path` when the block ends without an error.

    After an error or an interrupt it is removed. After a kill it stays, no reader takes it, and the next run replaces
    it. Raises OutputError when `path` holds something, when another run is writing it, or the disk is too small.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not empty. Choose another --output_dir, or remove it first.")
    temporary, lock, ours = path.with_name(path.name + SUFFIX), None, False
    try:
        lock = _take(temporary, path)
        ours = True
        _empty(temporary)
        _room(temporary, needed_bytes)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        if ours:
            shutil.rmtree(temporary, ignore_errors=True)
        elif not isinstance(error, OutputError):
            # interrupted before the lock was ours: an empty folder at most
            with suppress(OSError):
                temporary.rmdir()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(path, needed_bytes) from None
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _take(temporary: Path, path: Path) -> int:
    """Make the folder and lock it, so that two conversions never write one; the lock's descriptor."""
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        lock = os.open(temporary, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"{temporary} cannot be made ({error.strerror}). Choose another --output_dir."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OutputError(f"{path} is being written by another conversion. Wait for it.") from None
    return lock


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        entry.unlink() if not entry.is_dir() or entry.is_symlink() else shutil.rmtree(entry)


def _room(directory: Path, needed: int) -> None:
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, "disk full")


def _full(path: Path, needed: int) -> OutputError:
    free = shutil.disk_usage(path.parent).free
    return OutputError(
        f"the disk is full: {path} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Nothing was left behind; "
        f"free some space or choose an --output_dir on another disk."
    )
