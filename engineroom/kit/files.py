"""Where Engine Room keeps a person's own files, and how it writes a file: completely or not at all."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

import platformdirs

from engineroom.kit.errors import UserError

PROBE_BYTES = 1 << 16  # what a folder must hold to count as writable


class FolderError(UserError, OSError):
    """A folder that cannot be created or written to; the message says why and what to do."""


class FileError(UserError, OSError):
    """A file that cannot be written; the message says why and what to do."""


def home(*parts: str) -> Path:
    """Return the folder for progress, logs and server ledgers, or a folder below it; create it if it is missing.

    ``ENGINEROOM_HOME`` overrides the platform's usual place (``platformdirs.user_data_dir``). Raises FolderError.
    """
    root = os.environ.get("ENGINEROOM_HOME") or platformdirs.user_data_dir("engineroom", appauthor=False)
    try:
        path = Path(root).expanduser()
    except RuntimeError as error:  # no HOME, and no such user in /etc/passwd
        raise FolderError(
            f"There is no home folder: {error} Set ENGINEROOM_HOME to a folder that you may write to."
        ) from None
    return make_folder(path.absolute().joinpath(*parts), "Set ENGINEROOM_HOME to")


def make_folder(folder: Path, remedy: str = "Choose") -> Path:
    """Create the folder and its parents if they are missing, and return it.

    Raises FolderError, whose advice is ``remedy`` followed by "a folder that you may write to".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _folder_error(folder, "create", error, remedy) from error
    return folder


def require_writable(folder: Path, remedy: str = "Choose") -> Path:
    """Return the folder after a trial: a file was written to it, or to its nearest parent that exists, and removed.

    Call it before long work whose result goes to the folder. Raises FolderError, with advice as in ``make_folder``.
    """
    try:
        existing = next(
            parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
        )
        with TemporaryFile(dir=existing) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise _folder_error(folder, "write to", error, remedy) from error
    return folder


def _folder_error(folder: Path, verb: str, error: OSError, remedy: str) -> FolderError:
    advice = f"{remedy} a folder that you may write to."
    return FolderError(f"Cannot {verb} the folder {folder}: {error.strerror or error}. {advice}")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content``, text as UTF-8, through a temporary file: a reader sees the old file or the new one.

    A link stays a link: the file that it leads to is written. A file that exists keeps its mode; a new one gets the
    mode that the umask leaves. A device or a pipe is written directly. Raises FileError (disk full, no permission) and
    then leaves ``path`` as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"Cannot write {path}: {reason}. Free some space, or choose another file.") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".engineroom-{uuid.uuid4().hex[:12]}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to ``<name>.corrupt-<UTC time>`` and return the new path."""
    return path.rename(f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
