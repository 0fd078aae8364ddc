"""The learner's work folder: new lessons are added, and what the learner wrote stays."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import nbformat

from engineroom.kit.errors import UserError
from engineroom.kit.files import make_folder, require_writable, set_aside
from tools.author.files import ROOT, LessonNotFound, write_whole
from tools.author.source import dumps

STATE = ".engineroom.json"  # in the work folder: file name -> fingerprint of the version that was delivered
LINKS = ("docs", "models", "records")  # folders of the repository that a work folder links to
UP = re.compile(r"""(\]\(|\b(?:src|href)=["'])\.\./""")  # a link from notebooks/ to the repository


class WorkFolderError(UserError, ValueError):
    """A folder that cannot be the work folder."""


@dataclass
class SyncReport:
    """What ``sync`` did, by file name; a file that stays maps to its new version, a replaced one to its backup."""

    added: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    new_versions: dict[str, str] = field(default_factory=dict)
    backups: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{name}: new" for name in self.added]
        lines += [f"{name}: was deleted, is back" for name in self.restored]
        for name in self.updated:
            backup = self.backups.get(name)
            lines.append(f"{name}: updated" + (f"; your outputs are in {backup}" if backup else ""))
        lines += [
            f"{name}: yours is kept; the new version is {new}" for name, new in self.new_versions.items()
        ]
        return "\n".join(lines + self.notes) or "the lessons are up to date"


def sync(work: Path, lessons: Path = ROOT / "notebooks") -> SyncReport:
    """Bring the lessons in ``work`` up to date; a cell that the learner wrote is never overwritten.

    A copy is unchanged when the sources of its cells are those delivered, whatever its outputs. It is replaced; if it
    has outputs, it is first copied to ``NN_name.before-update.ipynb``. A changed copy stays, and the new version is
    written beside it as ``NN_name.new.ipynb``. The next run completes an interrupted one. Raises LessonNotFound when
    there are no lessons and WorkFolderError for a ``work`` that cannot be a work folder.
    """
    sources = sorted(lessons.glob("*.ipynb"))
    if not sources:
        raise LessonNotFound(f"no lessons in {lessons}; build them: engineroom lessons")
    if os.path.exists(work) and (not work.is_dir() or work.resolve() == lessons.resolve()):
        raise WorkFolderError(f"{work} cannot be the work folder: name a new or empty folder.")
    prepare(work)
    report = SyncReport()
    state = _read_state(work / STATE, report)
    for source in sources:
        _deliver(source, work / source.name, state, report)
        write_whole(work / STATE, json.dumps(state, indent=1, sort_keys=True) + "\n")
    return report


def prepare(work: Path) -> None:
    """Create a work folder in which ``models/course`` and links to ``docs`` work."""
    require_writable(make_folder(work))
    for name in LINKS:
        link, target = work / name, ROOT / name
        if link.is_symlink() and link.resolve() != target.resolve():
            link.unlink()
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target, target_is_directory=True)


def delivered_text(source: Path) -> str:
    """Return the lesson for a work folder. Its links lead to the folder's own ``docs``, because JupyterLab shows
    nothing above the folder that it was started in."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = UP.sub(r"\1", cell.source)
    return dumps(notebook)


def fingerprint(data: bytes) -> str:
    """Hash a notebook's cells without outputs, counts, metadata and empty cells (JupyterLab appends an empty cell
    when the last one is run). Hash the bytes of a file that is not a notebook."""
    try:
        cells = nbformat.reads(data.decode(), as_version=4).cells
        sources = [(cell.cell_type, cell.source.rstrip()) for cell in cells if cell.source.strip()]
        data = json.dumps(sources).encode()
    except (ValueError, AttributeError, nbformat.ValidationError):
        pass  # half a file, or another kind of file
    return hashlib.sha256(data).hexdigest()


def _deliver(source: Path, copy: Path, state: dict[str, str], report: SyncReport) -> None:
    text = delivered_text(source)
    delivered = state.get(copy.name)
    new = fingerprint(text.encode())
    if not copy.exists():
        (report.restored if delivered else report.added).append(copy.name)
        write_whole(copy, text)
    else:
        current = fingerprint(copy.read_bytes())
        if current == delivered != new:
            _back_up(copy, report)
            write_whole(copy, text)
            report.updated.append(copy.name)
        elif new not in (
            current,
            delivered,
        ):  # the learner's version, and a version that was not delivered yet
            path = _free_path(copy, "new", new)
            write_whole(path, text)
            report.new_versions[copy.name] = path.name
    state[copy.name] = new


def _back_up(notebook: Path, report: SyncReport) -> None:
    """Copy a notebook that contains outputs."""
    cells = nbformat.read(notebook, as_version=4).cells
    if any(cell.get("outputs") for cell in cells):
        paths = _numbered_paths(notebook, "before-update")
        backup = next(
            path for path in paths if not path.exists() or path.read_bytes() == notebook.read_bytes()
        )
        write_whole(backup, notebook.read_text(encoding="utf-8"))
        report.backups[notebook.name] = backup.name


def _free_path(notebook: Path, suffix: str, new: str) -> Path:
    """Return the first path that is free or contains this very version, so that no earlier file is overwritten."""
    paths = _numbered_paths(notebook, suffix)
    return next(path for path in paths if not path.exists() or fingerprint(path.read_bytes()) == new)


def _numbered_paths(notebook: Path, suffix: str) -> Iterator[Path]:
    yield notebook.with_suffix(f".{suffix}.ipynb")
    yield from (notebook.with_suffix(f".{suffix}-{number}.ipynb") for number in count(2))


def _read_state(path: Path, report: SyncReport) -> dict[str, str]:
    try:
        state = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(state, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        aside = set_aside(path)
        note = f"{STATE} could not be read ({error}) and is now {aside.name}; in case of doubt your version stays"
        report.notes.append(note)
        return {}
    return state
