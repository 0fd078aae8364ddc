"""An output directory that is complete or absent: filled under a temporary name, locked, renamed at the end.

A missing directory is filled beside its place and appears with one rename. A directory that exists may be a mounted
volume, the current folder of a shell, or one with rights of its own, so it must stay the same directory: it is filled
in a folder inside it, and the entries are moved up at the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engineroom.kit.errors import UserError

SUFFIX = ".incomplete"  # of the temporary name; the folder inside a directory that exists has no other name
LAST = ("manifest.json", "config.json")  # readers begin with them, so they are moved at the end
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NEW_VOLUME = "lost+found"  # what a new ext4 file system contains


class OutputError(UserError, ValueError):
    """An output directory that cannot be written; the message says why and what to do."""


def is_incomplete(path: Path) -> bool:
    """Return True for what an interrupted run has left: no reader may open it."""
    return path.name.endswith(SUFFIX) or (path / SUFFIX).is_dir()


@contextmanager
def output_directory(path: str | Path, needed_bytes: int) -> Iterator[Path]:
    """Yield a temporary folder, which the block fills; `path` has its files when the block ends without an error.

    After an error or an interrupt everything that was created is removed. After a kill the temporary folder stays; no
    reader opens it, and the next run replaces it. Raises OutputError when `path` is not an empty directory, when
    another run is writing it, when nothing can be created there, or when the disk has less than `needed_bytes` free.
    """
    target = _resolve(Path(path))
    in_place = target.exists()
    temporary = target / SUFFIX if in_place else target.with_name(target.name + SUFFIX)
    created = [parent for parent in temporary.parents if not parent.exists()]  # the innermost first
    lock: int | None = None
    try:
        lock = _create_and_lock(temporary, target)
        _clear(temporary)
        _check_free_space(temporary, needed_bytes)
        yield temporary
        if in_place:
            _move_up(temporary, target)
        else:
            temporary.replace(target)
    except BaseException as error:
        if lock is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        foreign = lock is None and isinstance(error, OutputError)  # another run owns the folder
        for folder in created if foreign else (temporary, *created):
            with suppress(OSError):  # it is not empty, or does not exist
                folder.rmdir()
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise _disk_full(target, needed_bytes) from None
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _resolve(path: Path) -> Path:
    """The directory that a path or link leads to. Raises OutputError unless it is missing or empty."""
    try:
        target = path.resolve()
        if target.exists() and (not target.is_dir() or set(os.listdir(target)) - {SUFFIX, NEW_VOLUME}):
            raise OutputError(
                f"{path} exists and is not empty. Choose another --output_dir, or remove it first."
            )
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be used ({reason}). Choose another --output_dir.") from None
    return target


def _create_and_lock(temporary: Path, target: Path) -> int:
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
        raise OutputError(f"{target} is being written by another run. Wait until it has ended.") from None
    except OSError:
        pass  # a network file system without locks
    return lock


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _move_up(temporary: Path, target: Path) -> None:
    """Move all entries from the temporary folder to the directory around it; on an error move them back."""
    names = sorted(os.listdir(temporary), key=lambda name: (name in LAST, name))
    moved: list[str] = []
    try:
        for name in names:
            (temporary / name).rename(target / name)
            moved.append(name)
        temporary.rmdir()
    except BaseException:
        for name in moved:
            (target / name).rename(temporary / name)
        raise


def _check_free_space(directory: Path, needed_bytes: int) -> None:
    if shutil.disk_usage(directory).free < needed_bytes:
        raise OSError(errno.ENOSPC, "disk full")


def _disk_full(path: Path, needed_bytes: int) -> OutputError:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    return OutputError(
        f"The disk is full: {path} needs {needed_bytes / 1e9:.2f} GB, and {free_bytes / 1e9:.2f} GB are free. Nothing "
        f"was left behind. Free some space, or choose an --output_dir on another disk."
    )
