"""Where things lie in the checkout, and how a generated file is written."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]


def write_whole(path: Path, text: str) -> bool:
    """Write ``text``, whole or not at all; False if the file holds it already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return True


def lesson_sources(names: list[str] | tuple[str, ...] = (), root: Path = ROOT) -> list[Path]:
    """The lessons' sources in course order; ``names`` picks by number ("01") or name ("01_serve_with_vllm").

    Raises FileNotFoundError when there is none, or none of a given name.
    """
    every = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    if not every:
        raise FileNotFoundError(f"no lesson (NN_name.py) in {root / 'solutions'}")
    unknown = [name for name in names if not any(_is(path, name) for path in every)]
    if unknown:
        have = ", ".join(path.stem for path in every)
        raise FileNotFoundError(f"no lesson {', '.join(unknown)}; there are: {have}")
    return [path for path in every if not names or any(_is(path, name) for name in names)]


def _is(path: Path, name: str) -> bool:
    return name in (path.stem, path.stem.split("_")[0], path.name)
