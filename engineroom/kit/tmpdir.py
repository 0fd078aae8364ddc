"""The TMPDIR of a program of ours: whatever ends the program, the next one removes what it left there.

A folder `engineroom-…` in TMPDIR contains a file that its owner locks while it lives; it lists what the owner has in
/dev/shm. The folder of a process becomes the TMPDIR of that process and its children, because libraries leave files
there: PyTorch unpacks a compiled engine, Triton a Python environment, and vLLM its sockets. The folders lie side by
side, never in each other, because the path of a socket is limited to 107 bytes.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from engineroom.kit.temporary import SOCKET_PATH_BYTES, Requirements, temporary_base

PREFIX = "engineroom-"
SOCKET = "/engineroom-01234567/" + 36 * "x"  # vLLM names its sockets by a UUID
PROGRAMS = Requirements(executable=True)
SERVERS = Requirements(executable=True, name_bytes=len(SOCKET), path_bytes=SOCKET_PATH_BYTES)
OWNER = ".owner"  # the locked file
_folders: dict[Path, int] = {}  # those of this process, each with the descriptor of its lock
_before: tuple[str | None, str | None] | None = None  # TMPDIR and tempfile.tempdir before own_folder


def base() -> Path:
    """Return the folder that contains all of these folders: TMPDIR, or its parent when it is one of them."""
    folder = Path(tempfile.gettempdir())
    while folder.name.startswith(PREFIX) and (folder / OWNER).exists():
        folder = folder.parent
    return folder


def program_base() -> Path:
    """Return `base`, or another folder if libraries that are unpacked there cannot be loaded.

    Raises TemporaryFolderError.
    """
    return temporary_base(PROGRAMS, base())


def server_base() -> Path:
    """Return `program_base`, or another folder if its path is too long for sockets. Raises TemporaryFolderError."""
    return temporary_base(SERVERS, base())


def create_locked(file: Path) -> int:
    """Create the file and lock it; return its descriptor, which no child inherits. Raises OSError.

    Another process may delete the file before it is locked; then it is created again.
    """
    while True:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def create_folder(place: Path, name: str = "") -> tuple[Path, int]:
    """Create the folder `place`/engineroom-NAME, by default a random name, owned by this process. Raises OSError.

    Return it with the descriptor of its locked file, in which the owner may list its files in /dev/shm.
    """
    folder = place / f"{PREFIX}{name or uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    _folders[folder] = create_locked(folder / OWNER)
    return folder, _folders[folder]


def own_folder() -> None:
    """Make a new folder the TMPDIR of this process and its children, until it ends or calls `release`.

    Folders whose owner has ended are removed first. A second call does nothing, nor does a call where no folder can be
    created.
    """
    global _before
    if _before is not None:
        return
    remove_abandoned()
    try:
        folder, _ = create_folder(program_base())
    except OSError:
        return
    _before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    atexit.register(_release_at_exit, os.getpid())


def release() -> None:
    """Remove the folders of this process and restore its TMPDIR; for a process that another program replaces."""
    global _before
    if _before is not None:
        variable, tempfile.tempdir = _before
        os.environ.pop("TMPDIR", None)
        if variable is not None:
            os.environ["TMPDIR"] = variable
        _before = None
    while _folders:
        folder, descriptor = _folders.popitem()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _release_at_exit(owner: int) -> None:
    if os.getpid() == owner:  # a fork of the owner is not the owner
        release()


def remove_abandoned() -> list[Path]:
    """Remove the folders whose owner has ended, however it ended, and no others; return their paths."""
    with suppress(OSError):  # TMPDIR cannot be read, or no folder suits
        folders = {
            folder for place in (base(), program_base(), server_base()) for folder in place.glob(f"{PREFIX}*")
        }
        return [folder for folder in sorted(folders) if _remove_if_abandoned(folder)]
    return []


def _remove_if_abandoned(folder: Path) -> bool:
    with suppress(OSError):  # locked, another user's, or no folder of ours; or another process removes it now
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return False
        with (folder / OWNER).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if files := lock.read().decode(errors="replace"):
                from engineroom.kit.shm import remove_shm  # slow to import, and seldom needed

                remove_shm(set(files.split("\n")))
            shutil.rmtree(folder, ignore_errors=True)
            return not folder.exists()
    return False
