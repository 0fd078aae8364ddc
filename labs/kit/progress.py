"""What the learner has done: a file in the data home that survives two kernels at once and a broken file."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ValidationError

from engineroom.kit.files import home, set_aside, write_atomic

Status = Literal["done", "changed", "started", "open"]
MARKS: dict[Status, str] = {
    "done": "✓", "changed": "↻ changed since you did it", "started": "started", "open": "not yet",
}  # fmt: skip


class Attempts(BaseModel):
    """The attempts at one version of one exercise; ``mistake`` and ``level`` say which hint comes next."""

    attempts: int = 0
    first_at: datetime | None = None
    passed_at: datetime | None = None
    mistake: str | None = None
    level: int = 0


class Progress(BaseModel):
    """All attempts: exercise id -> version -> attempts. `gains`: challenge id -> best gain over its baseline.

    `identity`: random, chosen once, so that what an exercise draws for a learner stays the same.
    """

    exercises: dict[str, dict[int, Attempts]] = {}
    gains: dict[str, float] = {}
    identity: str = ""

    def status(self, exercise: str, version: int) -> Status:
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
        entry.first_at = entry.first_at or datetime.now(UTC)
        if passed:
            entry.passed_at = entry.passed_at or datetime.now(UTC)
        else:
            entry.level = entry.level + 1 if mistake == entry.mistake else 0
        entry.mistake = mistake
        write_atomic(home() / "progress.json", progress.model_dump_json(indent=1))
        return entry.level


def identity() -> str:
    """Return the random identity of this progress file; it is chosen and written at the first call.

    Where the file cannot be written it is "", the same for everybody.
    """
    try:
        with _lock():
            progress = load()
            if not progress.identity:
                progress.identity = secrets.token_hex(8)
                write_atomic(home() / "progress.json", progress.model_dump_json(indent=1))
            return progress.identity
    except OSError:
        return ""


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
