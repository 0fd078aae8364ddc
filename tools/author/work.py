"""The learner's work folder: new lessons come in, what the learner wrote stays."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import nbformat

from engineroom.kit.files import set_aside
from tools.author.files import ROOT, write_whole
from tools.author.source import dumps

STATE = ".engineroom.json"  # in the work folder: file name -> fingerprint of what was delivered
LINKS = ("docs", "models", "records")  # what a work folder shows of the repository
UP = re.compile(r"""(\]\(|\b(?:src|href)=["'])\.\./""")  # a link from notebooks/ to the repository


@dataclass
class Report:
    """What ``sync`` did: file names, and for ``kept`` where the new version was put."""

    added: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    backups: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{name}: new" for name in self.added]
        lines += [f"{name}: was gone, is back" for name in self.restored]
        for name in self.updated:
            saved = self.backups.get(name)
            lines.append(f"{name}: updated" + (f"; your outputs are in {saved}" if saved else ""))
        lines += [f"{name}: yours is kept; the new version is {new}" for name, new in self.kept.items()]
        return "\n".join(lines + self.notes) or "the lessons are up to date"


def sync(work: Path, lessons: Path = ROOT / "notebooks") -> Report:
    """Bring the lessons in ``work`` up to date; a cell that the learner wrote is never overwritten.

    A copy counts as unchanged when its cells' sources are those delivered, whatever its outputs; then it is
    replaced, after a copy with outputs was put aside as ``NN_name.before-update.ipynb``. A changed copy stays
    and the new version goes beside it as ``NN_name.new.ipynb``. An interrupted run is completed by the next.
    Raises FileNotFoundError when there are no lessons, ValueError for a ``work`` that cannot be one.
    """
    sources = sorted(lessons.glob("*.ipynb"))
    if not sources:
        raise FileNotFoundError(f"no lessons in {lessons}; make them: engineroom build")
    if work.exists() and (not work.is_dir() or work.resolve() == lessons.resolve()):
        raise ValueError(f"{work} cannot be the work folder: name a new or empty folder.")
    prepare(work)
    report = Report()
    state = _read_state(work / STATE, report)
    for source in sources:
        _deliver(source, work / source.name, state, report)
        write_whole(work / STATE, json.dumps(state, indent=1, sort_keys=True) + "\n")
    return report


def prepare(work: Path) -> None:
    """Make a work folder in which ``models/course`` and links to ``docs`` work."""
    work.mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        link, target = work / name, ROOT / name
        if link.is_symlink() and link.resolve() != target.resolve():
            link.unlink()
        if not link.is_symlink() and not link.exists():
            link.symlink_to(target, target_is_directory=True)


def delivered_text(source: Path) -> str:
    """The lesson for a work folder: its links go to the folder's own ``docs``, since JupyterLab shows nothing
    above the folder that it was started in."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = UP.sub(r"\1", cell.source)
    return dumps(notebook)


def fingerprint(data: bytes) -> str:
    """A hash of a notebook's cells, without outputs, counts, metadata and empty cells (JupyterLab appends
    one when the last cell is run); of the bytes, where the file is no notebook."""
    try:
        cells = nbformat.reads(data.decode(), as_version=4).cells
        data = json.dumps([(c.cell_type, c.source.rstrip()) for c in cells if c.source.strip()]).encode()
    except (ValueError, AttributeError, nbformat.ValidationError):
        pass  # half a file or another one: then its bytes are what it is
    return hashlib.sha256(data).hexdigest()


def _deliver(source: Path, mine: Path, state: dict[str, str], report: Report) -> None:
    text, delivered = delivered_text(source), state.get(mine.name)
    new = fingerprint(text.encode())
    if not mine.exists():
        (report.restored if delivered else report.added).append(mine.name)
        write_whole(mine, text)
    elif (have := fingerprint(mine.read_bytes())) == new or delivered == new:
        pass  # up to date, or the learner's own, with this version already delivered
    elif have == delivered:
        _back_up(mine, report)
        write_whole(mine, text)
        report.updated.append(mine.name)
    else:
        beside = _place_beside(mine, "new", new)
        write_whole(beside, text)
        report.kept[mine.name] = beside.name
    state[mine.name] = new


def _back_up(mine: Path, report: Report) -> None:
    """Keep a copy of a notebook that holds outputs."""
    cells = nbformat.read(mine, as_version=4).cells
    if any(cell.get("outputs") for cell in cells):
        backup = next(p for p in _names(mine, "before-update") if not p.exists() or _same(p, mine))
        write_whole(backup, mine.read_text(encoding="utf-8"))
        report.backups[mine.name] = backup.name


def _place_beside(mine: Path, what: str, new: str) -> Path:
    """The first name that is free or holds this very version, so that no earlier file is overwritten."""
    return next(p for p in _names(mine, what) if not p.exists() or fingerprint(p.read_bytes()) == new)


def _names(mine: Path, what: str) -> Iterator[Path]:
    yield mine.with_suffix(f".{what}.ipynb")
    yield from (mine.with_suffix(f".{what}-{number}.ipynb") for number in count(2))


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _read_state(path: Path, report: Report) -> dict[str, str]:
    try:
        state = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if not isinstance(state, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        aside = set_aside(path)
        note = f"{STATE} could not be read ({error}) and is now {aside.name}; where in doubt, yours is kept"
        report.notes.append(note)
        return {}
    return state
