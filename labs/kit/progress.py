"""What the learner has done: kept in the data home, safe against two kernels and a broken file."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime
from typing import Literal

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
  {% for one in lesson.exercises %}
  <tr><td>{{ one.title }}</td><td>{{ marks[one.status] }}</td><td>attempts: {{ one.attempts }}</td></tr>
  {% endfor %}
{% endfor %}
</table>
"""


class Attempts(BaseModel):
    """What happened with one version of one exercise; ``mistake`` and ``level`` say which hint comes next."""

    attempts: int = 0
    passed_at: datetime | None = None
    mistake: str | None = None
    level: int = 0


class Progress(BaseModel):
    """exercise id -> version -> attempts."""

    exercises: dict[str, dict[int, Attempts]] = {}

    def status(self, exercise: str, version: int) -> Literal["done", "changed", "started", "open"]:
        """``changed``: an earlier version of the exercise was passed, this one not yet."""
        versions = self.exercises.get(exercise, {})
        if version in versions and versions[version].passed_at:
            return "done"
        if any(attempts.passed_at for attempts in versions.values()):
            return "changed"
        return "started" if version in versions else "open"


def load() -> Progress:
    """Read the progress file; a broken one is moved aside, which is said, and progress starts anew."""
    path = home() / "progress.json"
    try:
        return Progress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Progress()
    except ValidationError:
        print(f"Your progress file could not be read. It is kept as {set_aside(path)}; I start a new one.")
        return Progress()


def note(exercise: str, version: int, *, passed: bool, mistake: str | None = None) -> int:
    """Count an attempt; return the level of the hint to show: 0, or one more when ``mistake`` is repeated."""
    with (home() / "progress.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two kernels take turns
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


def report(format: Literal["html", "json"] = "html") -> str:
    """A page to hand in: done and total by lesson, machine, the course's commit, and a hash over it all.

    The HTML page carries the same JSON inside, so that ``verify`` works on both.
    """
    if format not in ("html", "json"):
        raise ValueError(f"format must be 'html' or 'json', not {format!r}")
    progress = load()
    facts = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    facts |= {"machine": machine().short(), "lessons": [_lesson(one, progress) for one in course.LESSONS]}
    text = json.dumps(facts | {"sha256": digest(facts)}, indent=1)
    if format == "json":
        return text
    page = jinja2.Template(PAGE, autoescape=True).render(facts, marks=MARKS)
    return page + DATA + text.replace("<", "\\u003c") + "</script>"


def verify(text: str) -> bool:
    """True when a report's facts agree with its hash. It finds slips and edits, not a determined forger."""
    try:
        facts = json.loads(text.partition(DATA)[2].partition("</script>")[0] or text)
        return facts.pop("sha256") == digest(facts)
    except (ValueError, KeyError, AttributeError):
        return False


def _lesson(lesson: course.Lesson, progress: Progress) -> dict:
    rows = []
    for one in course.exercises(lesson):
        entry = progress.exercises.get(one.id, {}).get(one.version, Attempts())
        row = {"id": one.id, "version": one.version, "title": one.title}
        row["status"] = progress.status(one.id, one.version)
        rows.append(row | entry.model_dump(mode="json", include={"attempts", "passed_at"}))
    done = sum(row["status"] == "done" for row in rows)
    return {"lesson": lesson.slug, "done": done, "total": len(rows), "exercises": rows}
