"""Solution regions: the part of a code cell that a learner writes.

The markers are nbgrader's (``### BEGIN SOLUTION`` … ``### END SOLUTION``); ``### STARTER`` inside a region
begins the commented-out lines that the learner gets in its place.
https://nbgrader.readthedocs.io/en/stable/user_guide/creating_and_grading_assignments.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from engineroom.kit.errors import UserError

MARKER = re.compile(r"(?P<indent>\s*)### (?P<kind>BEGIN SOLUTION|STARTER|END SOLUTION)\s*")
LOOKALIKE = re.compile(r"\s*#+\s*((BEGIN|END)\s+SOLUTION|STARTER)\s*", re.IGNORECASE)

MARKERS = "Write '### BEGIN SOLUTION', '### STARTER' or '### END SOLUTION'."
YOUR_CODE = "# ✏️ YOUR CODE"
EMPTY_ANSWER = "...  # write your answer here"
SOLUTION = "# solution"


class SourceError(UserError, ValueError):
    """A lesson's source is wrong; the message starts with ``file:line``."""

    def __init__(self, path: Path | str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.line = line


@dataclass
class Region:
    """One region: its indentation, its first line in the file (1-based), and both versions of its lines."""

    indent: str
    line: int
    solution: list[str] = field(default_factory=list)
    starter: list[str] | None = None

    def solved(self) -> list[str]:
        """Return the lines of the executed solution."""
        return [self.indent + SOLUTION, *self.solution]

    def to_write(self) -> list[str]:
        """Return the lines that the learner gets."""
        starter = [self.indent + EMPTY_ANSWER] if self.starter is None else self.starter
        return [self.indent + YOUR_CODE, *starter]


CellParts = list[str | Region]


def split(source: str, path: Path | str, first_line: int) -> CellParts:
    """Split a code cell into lines and regions.

    ``first_line`` is the cell's first line in the file, 1-based. Raises SourceError for regions that are nested,
    unbalanced or empty, and for a starter line that is not a comment.
    """
    parts: CellParts = []
    region: Region | None = None
    for line_number, line in enumerate(source.splitlines(), first_line):
        marker = MARKER.fullmatch(line)
        if marker is None:
            if LOOKALIKE.fullmatch(line):
                raise SourceError(path, line_number, f"{line.strip()!r} is not a marker. {MARKERS}")
            _add(line, parts, region, path, line_number)
            continue
        kind = marker["kind"]
        _check_order(kind, region, path, line_number)
        if kind == "BEGIN SOLUTION":
            region = Region(marker["indent"], line_number)
        elif region is not None and kind == "STARTER":
            region.starter = []
        elif region is not None:
            _check_content(region, path)
            parts.append(region)
            region = None
    if region is not None:
        raise SourceError(path, region.line, "this region has no '### END SOLUTION' in its cell.")
    return parts


def _check_order(kind: str, region: Region | None, path: Path | str, line: int) -> None:
    if kind == "BEGIN SOLUTION" and region is not None:
        raise SourceError(
            path, line, f"a region inside the region of line {region.line}: end that region first."
        )
    if kind != "BEGIN SOLUTION" and region is None:
        raise SourceError(path, line, f"'### {kind}' without a '### BEGIN SOLUTION' before it in its cell.")
    if kind == "STARTER" and region is not None and region.starter is not None:
        raise SourceError(path, line, f"a second '### STARTER' in the region of line {region.line}.")


def _add(line: str, parts: CellParts, region: Region | None, path: Path | str, line_number: int) -> None:
    if region is None:
        parts.append(line)
    elif region.starter is None:
        region.solution.append(line)
    else:
        region.starter.append(_uncommented(line, path, line_number))


def _uncommented(line: str, path: Path | str, line_number: int) -> str:
    text = line.lstrip()
    indent = line[: len(line) - len(text)]
    if text in ("", "#"):
        return ""
    if not text.startswith("# "):
        raise SourceError(path, line_number, "a starter line must be a comment, '# ' and then the code.")
    return indent + text[2:]


def _check_content(region: Region, path: Path | str) -> None:
    if not any(line.strip() for line in region.solution):
        raise SourceError(path, region.line, "this region has no solution.")
    if region.starter is not None and not any(line.strip() for line in region.starter):
        raise SourceError(path, region.line, "'### STARTER' without a line; leave it out for a plain '...'.")
