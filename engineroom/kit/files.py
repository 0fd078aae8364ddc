"""Where Engine Room keeps a person's own files, and how it writes a file: completely or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import platformdirs

from engineroom.kit.errors import UserError


class FolderError(UserError, OSError):
    """A folder that cannot be created; the message says why and what to do."""


def home(*parts: str) -> Path:
    """Return the folder for progress, logs and server ledgers, or a folder below it; create it if it is missing.

    ``ENGINEROOM_HOME`` overrides the platform's usual place (``platformdirs.user_data_dir``). Raises FolderError.
    """
    root = os.environ.get("ENGINEROOM_HOME") or platformdirs.user_data_dir("engineroom", appauthor=False)
    return make_folder(Path(root).expanduser().absolute().joinpath(*parts), "Set ENGINEROOM_HOME to")


def make_folder(folder: Path, remedy: str = "Choose") -> Path:
    """Create the folder and its parents if they are missing, and return it.

    Raises FolderError, whose advice is ``remedy`` followed by "a folder that you may write to".
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = f"{remedy} a folder that you may write to."
        raise FolderError(f"Cannot create the folder {folder}: {error.strerror}. {advice}") from error
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary file, so that a reader sees the old file or the new one.

    Raises OSError (disk full, no permission) and then leaves ``path`` as it was.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            temporary.write(text.encode())
            temporary.flush()
            os.fsync(temporary.fileno())
            os.fchmod(temporary.fileno(), 0o644)
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to ``<name>.corrupt-<UTC time>`` and return the new path."""
    return path.rename(f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
