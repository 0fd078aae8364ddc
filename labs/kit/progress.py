"""What the learner has done: a file in the data home that survives two kernels at once and a broken file."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import jinja2
from pydantic import BaseModel, ValidationError

from engineroom.kit.files import home, set_aside, write_atomic
from engineroom.kit.machine import machine
from engineroom.kit.record import commit, digest
from labs.kit import course

DATA = '<script type="application/json">'
MARKS = {"done": "✓", "changed": "↻ changed since you did it", "started": "started", "open": "not yet"}
PAGE = """<h2>Engine Room: progress</h2>
<p>Written {{ written }}, course commit {{ commit }}, on {{ machine.cpu }} {{ machine.gpus | join(", ") }}</p>
<table>
{% for lesson in lessons %}
  <tr><th colspan=3>{{ lesson.lesson }}: {{ lesson.done }} of {{ lesson.total }}</th></tr>
  {% for row in lesson.exercises %}
  <tr><td>{{ row.title }}</td><td>{{ marks[row.status] }}</td><td>attempts: {{ row.attempts }}</td></tr>
  {% endfor %}
{% endfor %}
</table>
"""


class Attempts(BaseModel):
    """The attempts at one version of one exercise; ``mistake`` and ``level`` say which hint comes next."""

    attempts: int = 0
    passed_at: datetime | None = None
    mistake: str | None = None
    level: int = 0


class Progress(BaseModel):
    """All attempts: exercise id -> version -> attempts. `gains`: challenge id -> best gain over its baseline."""

    exercises: dict[str, dict[int, Attempts]] = {}
    gains: dict[str, float] = {}

    def status(self, exercise: str, version: int) -> Literal["done", "changed", "started", "open"]:
        """Return how far this version is; ``changed``: an earlier version was passed, this one not yet."""
        versions = self.exercises.get(exercise, {})
        if version in versions and versions[version].passed_at:
            return "done"
        if any(attempts.passed_at for attempts in versions.values()):
            return "changed"
        return "started" if version in versions else "open"


def load() -> Progress:
    """Read the progress file. A broken file is renamed with a message, and progress starts anew."""
    path = home() / "progress.json"
    try:
        return Progress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Progress()
    except ValidationError:
        print(f"Your progress file could not be read. It is now {set_aside(path)}; a new one is started.")
        return Progress()


def record_attempt(exercise: str, version: int, *, passed: bool, mistake: str | None = None) -> int:
    """Count an attempt; return the level of the hint to show: 0, or one more when ``mistake`` is repeated."""
    with _lock():
        progress = load()
        entry = progress.exercises.setdefault(exercise, {}).setdefault(version, Attempts())
        entry.attempts += 1
        if passed:
            entry.passed_at = entry.passed_at or datetime.now(UTC)
        else:
            entry.level = entry.level + 1 if mistake == entry.mistake else 0
        entry.mistake = mistake
        write_atomic(home() / "progress.json", progress.model_dump_json(indent=1))
        return entry.level


def best_gain(challenge: str) -> float:
    """Return the best gain over the challenge's baseline so far, 0 before the first bar was reached."""
    return load().gains.get(challenge, 0.0)


def record_gain(challenge: str, gain: float) -> None:
    """Keep ``gain`` if it is the best of this challenge so far."""
    with _lock():
        progress = load()
        progress.gains[challenge] = max(gain, progress.gains.get(challenge, 0.0))
        write_atomic(home() / "progress.json", progress.model_dump_json(indent=1))


@contextmanager
def _lock() -> Iterator[None]:
    """Hold the lock of the progress file: two kernels take turns."""
    with (home() / "progress.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def report(format: Literal["html", "json"] = "html") -> str:
    """Return a page to hand in: done and total of each lesson, machine, the course's commit, and a hash of all that.

    The HTML page contains the same JSON, so that ``verify`` works on both. Raises ValueError for another format.
    """
    if format not in ("html", "json"):
        raise ValueError(f"format must be 'html' or 'json', not {format!r}")
    progress = load()
    facts: dict[str, Any] = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    lessons = [_lesson_facts(lesson, progress) for lesson in course.LESSONS]
    facts |= {"machine": machine().short(), "lessons": lessons}
    text = json.dumps(facts | {"sha256": digest(facts)}, indent=1)
    if format == "json":
        return text
    page = jinja2.Template(PAGE, autoescape=True).render(facts, marks=MARKS)
    return page + DATA + text.replace("<", "\\u003c") + "</script>"


def verify(text: str) -> bool:
    """Return True when a report's facts agree with its hash. It detects edits, not a determined forger."""
    try:
        facts = json.loads(text.partition(DATA)[2].partition("</script>")[0] or text)
        return facts.pop("sha256") == digest(facts)
    except (ValueError, KeyError, AttributeError):
        return False


def _lesson_facts(lesson: course.Lesson, progress: Progress) -> dict[str, Any]:
    rows = []
    for exercise in course.exercises(lesson):
        attempts = progress.exercises.get(exercise.id, {}).get(exercise.version, Attempts())
        row = {"id": exercise.id, "version": exercise.version, "title": exercise.title}
        row["status"] = progress.status(exercise.id, exercise.version)
        rows.append(row | attempts.model_dump(mode="json", include={"attempts", "passed_at"}))
    num_done = sum(row["status"] == "done" for row in rows)
    return {"lesson": lesson.slug, "done": num_done, "total": len(rows), "exercises": rows}
