"""Where the course keeps a learner's own files, and how it writes them: whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import platformdirs


def home(*parts: str) -> Path:
    """Folder for progress, logs and the server ledger, made when missing.

    ``ENGINEROOM_HOME`` overrides the platform's usual place (``platformdirs.user_data_dir``).
    """
    root = os.environ.get("ENGINEROOM_HOME") or platformdirs.user_data_dir("engineroom", appauthor=False)
    folder = Path(root).expanduser().absolute().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{error.strerror}. Set ENGINEROOM_HOME to a folder that you may write."
        raise OSError(error.errno, f"Cannot make the folder {folder}: {why}") from error
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` through a temporary file: a reader sees the old file or the new one.

    Raises OSError (disk full, no permission) and then leaves ``path`` as it was.
    """
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            new.write(text.encode())
            new.flush()
            os.fsync(new.fileno())
            os.fchmod(new.fileno(), 0o644)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to ``<name>.corrupt-<UTC time>`` and return the new path."""
    return path.rename(f"{path}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
