"""A number with its birth certificate: what ran, where, which versions, which command, when, how often.

``engineroom records schema`` writes ``records/schema.json`` from the model below.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import json
import shlex
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, FiniteFloat, ValidationError, ValidationInfo, model_validator

from engineroom.kit.errors import UserError
from engineroom.kit.files import write_atomic
from engineroom.kit.machine import machine

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "records"
Kind = Literal["measured", "published"]
Row = tuple[str, str, str, dict[str, list[float]]]  # end of a record's name, what, unit, samples


class RecordError(UserError, ValueError):
    """A record is missing, malformed, or was changed after it was written."""


class Summary(NamedTuple):
    """Median, least and greatest of ``n`` samples, in the record's unit."""

    median: float
    min: float
    max: float
    n: int


class Source(BaseModel, frozen=True, extra="forbid"):
    """Who published a number: the page, the day it was read, and where from when not from the page itself."""

    url: str = Field(pattern=r"^https?://")
    date: date
    via: str | None = None


class Record(BaseModel, frozen=True, extra="forbid"):
    """Samples of one quantity in one unit, as one or more named series, with where they come from.

    ``values`` has the samples of each series, ``sources`` who published each. ``sha256`` covers all other fields
    as canonical JSON; it is filled in for a new record.
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
        """A measurement of ours. ``samples`` is a list, or series by name; ``facts`` are the other fields.

        ``machine``, ``versions``, ``started`` and ``commit`` are filled in from here and now unless given;
        ``command`` is the command line that makes the number again.
        """
        here = machine()
        found = {"machine": here.short(), "versions": here.versions, "commit": commit()}
        found["started"] = datetime.now(UTC).replace(microsecond=0)
        values = samples if isinstance(samples, dict) else {"value": samples}
        return cls(kind="measured", values=values, **{**found, **facts})

    @model_validator(mode="after")
    def _seal(self, info: ValidationInfo) -> Self:
        if not all(self.values.values()):
            raise ValueError("a series has no samples")
        if self.kind == "published" and self.sources.keys() != self.values.keys():
            raise ValueError("each series of a published record needs a source")
        if self.kind == "measured" and not (self.machine and self.started):
            raise ValueError("a measured record needs machine and started")
        found = digest(self.model_dump(mode="json", exclude={"sha256"}))
        if self.sha256 != found and (self.sha256 or info.context == "file"):
            raise ValueError("sha256 does not match: the record was changed after it was written")
        object.__setattr__(self, "sha256", found)
        return self

    @property
    def summary(self) -> dict[str, Summary]:
        """Summary of each series."""
        items = self.values.items()
        return {name: Summary(statistics.median(one), min(one), max(one), len(one)) for name, one in items}

    def save(self, folder: Path | None = None) -> Path:
        """Write ``<folder>/<name>.json`` whole or not at all; folder: ``records/<kind>`` unless given."""
        path = (folder or RECORDS / self.kind) / f"{self.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, self.model_dump_json(indent=1, exclude_defaults=True) + "\n")
        return path

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a record and check it against the model and its hash; raises RecordError."""
        try:
            return cls.model_validate_json(Path(path).read_bytes(), context="file")
        except FileNotFoundError as error:
            raise RecordError(f"There is no record {path}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            why = " ".join(map(str, (*first["loc"], first["msg"])))
            raise RecordError(f"{path} is refused: {why}. Measure again, or take it from git.") from error

    def __str__(self) -> str:
        lines = []
        for name, one in self.summary.items():
            spread = f" (median of {one.n}, {one.min:.4g} to {one.max:.4g})" if one.n > 1 else ""
            lines.append(f"{name}: {one.median:.4g} {self.unit}{spread}")
        if len(lines) == 1:
            return f"{self.what}: {lines[0].removeprefix(f'{name}: ')}. {self._origin()}"
        return "\n  ".join([f"{self.what}:", *lines, self._origin()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self)).replace(chr(10), '<br>')}</p>"

    def _origin(self) -> str:
        if self.kind == "published":
            pages = sorted({f"{one.url} ({one.date})" for one in self.sources.values()})
            return f"Published: {', '.join(pages)}."
        where = self.machine.get("gpus") or [f"{self.machine.get('cpu')}, {self.machine.get('cores')} cores"]
        versions = " ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"Measured on {where[0]}, {self.started:%Y-%m-%d}, {versions or 'no versions noted'}."


def find(name: str, kind: Kind = "measured") -> Record:
    """Load ``records/<kind>/<name>.json``; raises RecordError with near names when there is none."""
    known = {path.stem: path for path in sorted((RECORDS / kind).glob("*.json"))}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise RecordError(f"There is no {kind} record {name!r}. There is: {', '.join(near) or 'none'}.")
    return Record.load(known[name])


def keep(name: str, rows: Iterable[Row], command: str, folder: Path | None = None) -> list[Record]:
    """Save and print a measured record ``name-end`` of each row.

    All are made before the first is saved: that changes the working tree, which they name.
    """
    records = [
        Record.measured(name=f"{name}-{end}", what=what, unit=unit, samples=samples, command=command)
        for end, what, unit, samples in rows
    ]
    for one in records:
        one.save(folder)
        print(one)
    return records


def command_line(command: str, *words: object, **options: object) -> str:
    """``engineroom command`` with these words and options: the ``command`` of a record."""
    named = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    return shlex.join(["engineroom", *command.split(), *map(str, [*words, *named])])


def digest(facts: dict[str, Any]) -> str:
    """SHA-256 of ``facts`` as canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def commit() -> str | None:
    """The course's git commit, with ``-dirty`` when files differ from it; None outside git."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def schema() -> str:
    """The JSON Schema of a record file: as the model, with the hash required."""
    facts = Record.model_json_schema()
    facts["required"] = sorted({*facts["required"], "sha256"})
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **facts}, indent=1) + "\n"


if __name__ == "__main__":
    RECORDS.mkdir(exist_ok=True)
    write_atomic(RECORDS / "schema.json", schema())
