"""A lesson's temporary folder, into which every cell can write again."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from engineroom.kit import tmpdir

_folders: dict[str, ScratchFolder] = {}


class ScratchFolder:
    """A temporary folder of one lesson; it is removed when the process ends."""

    def __init__(self, lesson: str) -> None:
        tmpdir.own_folder()  # also removed after the kernel was killed, with what libraries leave in TMPDIR
        self.path = Path(tempfile.mkdtemp(prefix=f"{lesson}-"))
        atexit.register(self.remove)

    def fresh(self, name: str) -> Path:
        """Return the path of `name` in the folder, after removing the file or folder that an earlier run left there."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        self.path.mkdir(exist_ok=True)
        return path

    def remove(self) -> None:
        """Remove the folder and everything in it. A second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)


def scratch_folder(lesson: str) -> ScratchFolder:
    """Return the folder of this lesson, the same one each time, so that running its cell again loses no files."""
    if lesson not in _folders:
        _folders[lesson] = ScratchFolder(lesson)
    return _folders[lesson]
