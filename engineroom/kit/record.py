"""A measured or published number with its origin: what ran, where, which versions, which command, when, how often.

``engineroom records schema`` writes ``records/schema.json`` from the model below.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, ValidationInfo, model_validator

from engineroom.kit.errors import UserError
from engineroom.kit.files import make_folder, require_writable, write_atomic
from engineroom.kit.machine import machine
from engineroom.kit.record_text import as_html, as_text

ROOT = Path(__file__).parents[2]
Kind = Literal["measured", "published"]
RecordRow = tuple[
    str, str, str, dict[str, list[float]]
]  # end of a record's name, what was measured, unit, samples by series


class RecordError(UserError, ValueError):
    """A record is missing, malformed, or was changed after it was written."""


class Summary(NamedTuple):
    """Median, minimum and maximum of ``n`` samples, in the record's unit."""

    median: float
    min: float
    max: float
    n: int


class Source(BaseModel, frozen=True, extra="forbid"):
    """The page that published a number, the day it was read, and ``via``, the copy that was read instead, if any."""

    url: str = Field(pattern=r"^https?://")
    date: date
    via: str | None = None


class Record(BaseModel, frozen=True, extra="forbid"):
    """Samples of one quantity in one unit, as one or more named series, with their origin.

    ``values`` holds the samples of each series, ``sources`` the page that published each. ``sha256`` covers all other
    fields as canonical JSON; it is computed for a new record.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    kind: Kind
    what: str = Field(min_length=1)
    unit: str
    values: dict[str, list[FiniteFloat]] = Field(min_length=1)
    machine: dict[str, str | int | float | list[str]] | None = None
    versions: dict[str, str] = {}
    command: str | None = None
    started: datetime | None = None
    commit: str | None = None
    sources: dict[str, Source] = {}
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @classmethod
    def measured(cls, *, samples: list[float] | dict[str, list[float]], **facts: Any) -> Self:
        """Create a record of our own measurement. ``samples`` is a list, or lists by series name.

        ``facts`` are the other fields. ``machine``, ``versions``, ``started`` and ``commit`` default to this machine
        and this moment. ``command`` is the command line that repeats the measurement.
        """
        card = machine()
        defaults = {"machine": card.short(), "versions": card.versions, "commit": commit()}
        defaults["started"] = datetime.now(UTC).replace(microsecond=0)
        values = samples if isinstance(samples, dict) else {"value": samples}
        return cls(kind="measured", values=values, **{**defaults, **facts})

    @model_validator(mode="after")
    def _seal(self, info: ValidationInfo) -> Self:
        if not all(self.values.values()):
            raise ValueError("a series has no samples")
        if self.kind == "published" and self.sources.keys() != self.values.keys():
            raise ValueError("each series of a published record needs a source")
        if self.kind == "measured" and not (self.machine and self.started):
            raise ValueError("a measured record needs machine and started")
        expected = digest(self.model_dump(mode="json", exclude={"sha256"}))
        if self.sha256 != expected and (self.sha256 or info.context == "file"):
            raise ValueError("sha256 does not match: the record was changed after it was written")
        object.__setattr__(self, "sha256", expected)
        return self

    @property
    def summary(self) -> dict[str, Summary]:
        """The summary of each series, by name."""
        return {name: summarise(samples) for name, samples in self.values.items()}

    def save(self, folder: Path | None = None) -> Path:
        """Write ``<folder>/<name>.json`` completely or not at all, and return its path.

        ``folder`` defaults to ``<records_folder()>/<kind>``. Raises FolderError when it cannot be created.
        """
        folder = make_folder(folder or records_folder() / self.kind)
        path = folder / f"{self.name}.json"
        write_atomic(path, self.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        return path

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a record and check it against the model and its hash. Raises RecordError."""
        try:
            return cls.model_validate_json(Path(path).read_bytes(), context="file")
        except FileNotFoundError as error:
            raise RecordError(f"There is no record {path}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            reason = " ".join(map(str, (*first["loc"], first["msg"])))
            raise RecordError(
                f"{path} is refused: {reason}. Measure again, or restore it from git."
            ) from error

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self)


def summarise(samples: list[float]) -> Summary:
    return Summary(statistics.median(samples), min(samples), max(samples), len(samples))


def checkout() -> Path | None:
    """Return the checkout that contains this package; None where the library is installed without the course."""
    return ROOT if (ROOT / "pyproject.toml").is_file() else None


def records_folder() -> Path:
    """Return the folder of all records: ``records/`` of the checkout, or of the current folder outside a checkout."""
    return (checkout() or Path.cwd()) / "records"


def find(name: str, kind: Kind = "measured") -> Record:
    """Load ``<records_folder()>/<kind>/<name>.json``. Raises RecordError with similar names when there is none."""
    folder = records_folder() / kind
    if not folder.is_dir():
        advice = (
            "Records come with a checkout of the course: run this inside a checkout, or save a record first."
        )
        raise RecordError(f"There is no {kind} record {name!r}, as there is no folder {folder}. {advice}")
    paths = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if name not in paths:
        near = difflib.get_close_matches(name, paths, n=3, cutoff=0.4) or paths
        raise RecordError(
            f"There is no {kind} record {name!r}. Existing records: {', '.join(near) or 'none'}."
        )
    return Record.load(paths[name])


def require_records_folder(folder: Path | None) -> None:
    """Check, before a measurement, that its records can be saved to ``folder``, as in ``Record.save``.

    Raises FolderError.
    """
    require_writable(folder or records_folder() / "measured")


def save_records(
    name: str, rows: Iterable[RecordRow], command: str, folder: Path | None = None
) -> list[Record]:
    """Save and print a measured record ``<name>-<end>`` for each row.

    All records are created before the first is saved, because they name the commit, and a saved file makes
    the working tree dirty.
    """
    records = [
        Record.measured(name=f"{name}-{end}", what=what, unit=unit, samples=samples, command=command)
        for end, what, unit, samples in rows
    ]
    for record in records:
        record.save(folder)
        print(record)
    return records


def command_line(command: str, *words: object, **options: object) -> str:
    """Return ``engineroom <command>`` with these words and options, quoted for a shell: the ``command`` of a record."""
    line = ["engineroom", *command.split(), *map(str, words)]
    for name, value in options.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(line)


def digest(facts: dict[str, Any]) -> str:
    """Return the SHA-256 of ``facts`` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def commit() -> str | None:
    """Return the checkout's git commit, with ``-dirty`` when files differ from it; None outside a git checkout."""
    folder = checkout()
    if folder is None:
        return None
    describe = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def short_commit(commit: str | None) -> str | None:
    """Return the commit as people read it: 10 digits of 40, and ``-dirty`` where it is."""
    return commit and re.sub(r"^([0-9a-f]{10})[0-9a-f]{30}", r"\1", commit)


def schema() -> str:
    """Return the JSON Schema of a record file: the model's schema, with the hash required."""
    fields = Record.model_json_schema()
    fields["required"] = sorted({*fields["required"], "sha256"})
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **fields}, indent=1) + "\n"
