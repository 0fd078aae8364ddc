"""An output directory that is complete or absent: filled under a temporary name, locked, renamed at the end."""

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
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputError(UserError, ValueError):
    """An output directory that cannot be written; the message says why and what to do."""


@contextmanager
def output_directory(path: str | Path, needed_bytes: int) -> Iterator[Path]:
    """Yield `<path>.incomplete`, which the block fills; it becomes `path` when the block ends without an error.

    After an error or an interrupt the directory is removed. After a kill it stays; no reader opens it, and the next
    run replaces it. Raises OutputError when `path` is not empty, when another run is writing it, or when the disk
    has less than `needed_bytes` free.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not empty. Choose another --output_dir, or remove it first.")
    temporary = path.with_name(path.name + SUFFIX)
    lock: int | None = None
    try:
        lock = _create_and_lock(temporary, path)
        _clear(temporary)
        _check_free_space(temporary, needed_bytes)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        if lock is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        elif not isinstance(error, OutputError):
            with suppress(
                OSError
            ):  # an interrupt before the lock: the directory is empty, or another run owns it
                temporary.rmdir()
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(path, needed_bytes) from None
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _create_and_lock(temporary: Path, path: Path) -> int:
    """Create the directory and lock it, so that two runs never write to it; return the lock's file descriptor."""
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        lock = os.open(temporary, os.O_RDONLY)
    except OSError as error:
        message = f"{temporary} cannot be created ({error.strerror}). Choose another --output_dir."
        raise OutputError(message) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise OutputError(f"{path} is being written by another run. Wait until it has ended.") from None
    return lock


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _check_free_space(directory: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(directory).free < needed_bytes:
        raise OSError(errno.ENOSPC, "disk full")


def _disk_full(path: Path, needed_bytes: int) -> OutputError:
    free_bytes = shutil.disk_usage(path.parent).free
    return OutputError(
        f"The disk is full: {path} needs {needed_bytes / 1e9:.2f} GB, and {free_bytes / 1e9:.2f} GB are free. Nothing "
        f"was left behind. Free some space, or choose an --output_dir on another disk."
    )
