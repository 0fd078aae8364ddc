"""The page that a learner hands in. A hash covers everything on it, so that an edit shows; it stops no forger."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, ValidationError

from engineroom.kit.errors import UserError
from engineroom.kit.machine import machine
from engineroom.kit.record import commit, digest, short_commit
from labs.kit import course
from labs.kit.progress import MARKS, Attempts, Progress, Status, load

FORMAT = "Engine Room progress report 2"
MAX_NAME = 200  # characters
TEMPLATE = Path(__file__).with_name("hand_in.html.j2")
DATA = '<script type="application/json">'
DATA_END = "</script>"
SEAL = re.compile(r"<!-- sha256 ([0-9a-f]{64}) -->")


class ReportError(UserError, ValueError):
    """A report that cannot be written, or a file that is no valid report; the message says which, and why."""


class ExerciseFacts(BaseModel, extra="forbid"):
    """One exercise: the attempts at its present version, and the times (UTC) of the first attempt and of the pass."""

    id: str
    version: int
    title: str
    status: Status
    attempts: int
    first_at: datetime | None
    passed_at: datetime | None


class LessonFacts(BaseModel, extra="forbid"):
    """One lesson: how many of its exercises are done, and each of them."""

    lesson: str
    title: str
    done: int
    total: int
    exercises: list[ExerciseFacts]


class Report(BaseModel, extra="forbid"):
    """Everything that a report shows. ``gains``: open challenge -> how many times as good as its baseline."""

    format: Literal["Engine Room progress report 2"] = FORMAT
    name: str | None
    written: datetime
    commit: str | None
    machine: str
    lessons: list[LessonFacts]
    gains: dict[str, float]


def report(format: Literal["html", "json"] = "html", *, name: str | None = None) -> str:
    """Return the learner's report, sealed: with ``name``, if any, progress, machine and the course's commit.

    The HTML page contains the same JSON, so that ``read`` accepts both. Raises ReportError for a name that cannot be
    shown on one line, and ValueError for another format.
    """
    if format not in ("html", "json"):
        raise ValueError(f"format must be 'html' or 'json', not {format!r}")
    facts = _report(_checked(name))
    text = _sealed_json(facts)
    if format == "json":
        return text + "\n"
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = (
        template.render(report=facts, marks=MARKS)
        + "\n"
        + DATA
        + text.replace("<", "\\u003c")
        + DATA_END
        + "\n"
    )
    return f"{page}<!-- sha256 {_page_digest(page)} -->\n"


def read(text: str) -> Report:
    """Return the contents of a report. Raises ReportError for a file that is foreign, damaged or edited."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").strip()
    if FORMAT not in text:
        raise ReportError(
            "this is no progress report of Engine Room. Ask for one: engineroom progress --report me.html"
        )
    if text.startswith("{"):
        return _read_json(text)
    page, newline, seal = text.rpartition("\n")
    match = SEAL.fullmatch(seal)
    if not match:
        raise ReportError("the end of this report is missing or was changed. Ask for the file again.")
    if match[1] != _page_digest(page + newline):
        raise _edited()
    return _read_json(page.partition(DATA)[2].rpartition(DATA_END)[0])


def read_file(path: Path) -> Report:
    """Return the contents of a report file. Raises ReportError, also for a file that cannot be read."""
    try:
        return read(path.read_bytes().decode())
    except OSError as error:
        raise ReportError(f"this file cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ReportError(
            "this is no text file, so it is no report, or it was damaged on its way."
        ) from error


def _report(name: str | None) -> Report:
    progress, now, card = load(), datetime.now(UTC).replace(microsecond=0), machine()
    device = ", ".join([card.cpu, *(gpu.name for gpu in card.gpus)])
    lessons = [_lesson_facts(lesson, progress) for lesson in course.LESSONS]
    return Report(
        name=name,
        written=now,
        commit=short_commit(commit()),
        machine=device,
        lessons=lessons,
        gains=dict(sorted(progress.gains.items())),
    )


def _lesson_facts(lesson: course.Lesson, progress: Progress) -> LessonFacts:
    rows = []
    for exercise in course.exercises(lesson):
        attempts = progress.exercises.get(exercise.id, {}).get(exercise.version, Attempts())
        facts = attempts.model_dump(include={"attempts", "first_at", "passed_at"})
        status = progress.status(exercise.id, exercise.version)
        rows.append(
            ExerciseFacts(
                id=exercise.id, version=exercise.version, title=exercise.title, status=status, **facts
            )
        )
    num_done = sum(row.status == "done" for row in rows)
    return LessonFacts(lesson=lesson.slug, title=lesson.title, done=num_done, total=len(rows), exercises=rows)


def _checked(name: str | None) -> str | None:
    name = (name or "").strip() or None
    if name and (len(name) > MAX_NAME or not name.isprintable()):
        raise ReportError(f"the name must be one line of at most {MAX_NAME} characters that can be printed.")
    return name


def _sealed_json(facts: Report) -> str:
    values = facts.model_dump(mode="json")
    return json.dumps(values | {"sha256": digest(values)}, indent=1, ensure_ascii=False)


def _read_json(text: str) -> Report:
    try:
        facts = json.loads(text, object_pairs_hook=_unique)
        seal = facts.pop("sha256")
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ReportError("this report is damaged or incomplete. Ask for the file again.") from error
    if seal != digest(facts):
        raise _edited()
    try:
        return Report.model_validate(facts)
    except ValidationError as error:
        reason = error.errors()[0]
        field = ".".join(map(str, reason["loc"]))
        raise ReportError(
            f"this report has another form than this version of the course writes ({field})."
        ) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a name twice: a reader would see one value, and the hash would cover the other."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _page_digest(page: str) -> str:
    return hashlib.sha256(page.encode()).hexdigest()


def _edited() -> ReportError:
    return ReportError("this report was changed after it was written: it does not agree with its hash.")
