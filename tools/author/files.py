"""Paths in the checkout, and how a generated file is written."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.errors import UserError
from engineroom.kit.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]


class LessonNotFound(UserError, FileNotFoundError):
    """There is no lesson of this name; the message lists the lessons."""


def write_whole(path: Path, text: str) -> bool:
    """Write ``text`` completely or not at all; return False when the file contains it already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return True


def lesson_sources(names: list[str] | tuple[str, ...] = (), root: Path = ROOT) -> list[Path]:
    """Return the lessons' sources in order; ``names`` selects by number ("01") or name ("01_serve_with_vllm").

    Raises LessonNotFound when there is no lesson, or none with a given name.
    """
    sources = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    if not sources:
        raise LessonNotFound(f"no lesson (NN_name.py) in {root / 'solutions'}")
    unknown = [name for name in names if not any(_matches(path, name) for path in sources)]
    if unknown:
        stems = ", ".join(path.stem for path in sources)
        raise LessonNotFound(f"no lesson {', '.join(unknown)}; there are: {stems}")
    return [path for path in sources if not names or any(_matches(path, name) for name in names)]


def _matches(path: Path, name: str) -> bool:
    return name in (path.stem, path.stem.split("_")[0], path.name)
