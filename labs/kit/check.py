"""Check an exercise: a wrong answer gets a hint that names the mistake, never a traceback."""

from __future__ import annotations

import difflib
import html
import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from labs.kit import calls, course, progress
from labs.kit.calls import DeadlineExceeded, LearnerFunction, learner_value
from labs.kit.cell_errors import learner_line, unfinished_advice
from labs.kit.course import Exercise, exercise, exercises
from labs.kit.formula import require_formula
from labs.kit.learner import is_unwritten
from labs.kit.needs import Unfinished, needs, needs_number, needs_numbers
from labs.kit.requirements import (
    Mistake,
    close,
    difference,
    require,
    require_function,
    require_mapping,
    require_names,
    require_number,
    require_sequence,
    require_whole_number,
)
from labs.kit.show import show_html, verdict_html
from labs.kit.values import shown, to_list, type_name

__all__ = [
    "CheckResult",
    "Mistake",
    "Unfinished",
    "check",
    "close",
    "difference",
    "exercise",
    "exercises",
    "needs",
]
__all__ += [
    "needs_number",
    "needs_numbers",
    "require",
    "require_formula",
    "require_function",
    "require_mapping",
]
__all__ += ["require_names", "require_number", "require_sequence", "require_whole_number", "shown", "to_list"]

COLOURS = {"PASSED": "#1f7a46", "NOT YET": "#a85d00", "CHECK FAILED": "#b3261e"}
ANOTHER_HINT = "<br><small>Still stuck? Run the check again for another hint.</small>"


@dataclass(frozen=True)
class CheckResult:
    """The verdict on an answer; true when it passed.

    ``str()`` is one line, the same for the same answer and hint. ``more_hints``: the next attempt gets another hint.
    """

    verdict: str
    exercise: str
    message: str
    more_hints: bool = False

    def __bool__(self) -> bool:
        return self.verdict == "PASSED"

    def __str__(self) -> str:
        return f"{self.verdict} {self.exercise}{' — ' if self else ': '}{self.message}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message, quote=False))
        message = f"{text}{ANOTHER_HINT if self.more_hints else ''}"
        return verdict_html(self.verdict, COLOURS[self.verdict], self.exercise, message)

    def _ipython_display_(self) -> None:
        """Display nothing: ``check`` has displayed the result already, even when its cell continues."""


def check(id: str, *values: object) -> CheckResult:
    """Check an answer, display the verdict and record it in the progress file; the result is true when it passed.

    Only the checks of the exercise's own lesson are imported. Raises ValueError for an unknown id; a wrong answer
    raises nothing.
    """
    entry = course.find_exercise(str(id))
    if entry is None:
        ids = course.exercise_ids()
        similar = difflib.get_close_matches(str(id), ids, n=3, cutoff=0.4) or ids
        raise ValueError(f"There is no exercise {id!r}. Did you mean {' or '.join(map(repr, similar))}?")
    result = _judge(entry, values)
    show_html(result._repr_html_(), plain=str(result))
    return result


def _judge(entry: Exercise, values: tuple[object, ...]) -> CheckResult:
    unwritten = any(map(is_unwritten, values))
    answers = [learner_value(value) for value in values]
    try:
        with calls.deadline(calls.DEADLINE):
            entry.function(*answers)
        hints = (entry.title,) if unwritten else ()
    except Mistake as mistake:
        hints = mistake.args or ("That is not it yet.",)
    except DeadlineExceeded as error:
        hints = (_deadline_text(error),)
    except Exception as error:  # noqa: BLE001 (whatever the learner's code raises becomes a hint)
        raised_by_call = any(
            isinstance(answer, LearnerFunction) and answer.error is error for answer in answers
        )
        text = _learner_error(error, raised_by_call=raised_by_call)
        if not (unwritten or text):
            return CheckResult("CHECK FAILED", entry.id, _check_error(error))
        unwritten |= isinstance(error, NotImplementedError)
        hints = (entry.title,) if unwritten else (text,)
    level = _record_attempt(entry, hints)
    if not hints:
        return CheckResult("PASSED", entry.id, entry.title)
    if unwritten:
        return CheckResult("NOT YET", entry.id, f"not written yet: {_fill_in(hints[0], values)}")
    last = len(hints) - 1
    return CheckResult(
        "NOT YET", entry.id, _fill_in(hints[min(level, last)], values), more_hints=level < last
    )


def _fill_in(hint: str, values: tuple[object, ...]) -> str:
    value = values[0] if values else None
    return hint.replace("{type}", type_name(value)).replace("{value}", shown(value))


def _record_attempt(entry: Exercise, hints: tuple[str, ...]) -> int:
    """Record the attempt in the progress file; return which of the hints to show, 0 when that fails."""
    mistake = hints[0] if hints else None
    try:
        return progress.record_attempt(entry.id, entry.version, passed=not hints, mistake=mistake)
    except OSError as error:
        print(f"Your progress could not be saved ({error}); the verdict stands.")
        return 0


def _learner_error(error: Exception, *, raised_by_call: bool) -> str:
    """Describe an error that the learner's code raised, with their innermost line; "" when it came from the check."""
    line = learner_line(error.__traceback__)
    if not (line or raised_by_call):
        return ""
    advice = unfinished_advice(error, error.__traceback__)
    return f"your code raised {_summary(error)}{line}" + (f". {advice}" if advice else "")


def _deadline_text(error: DeadlineExceeded) -> str:
    limit = f"{calls.DEADLINE:g} seconds"
    line = learner_line(error.__traceback__)
    if line:
        return f"your code was still running after {limit}{line}. Does every loop end?"
    return f"the check was not finished after {limit}. If the machine is busy, wait for that to end; then run it again."


def _check_error(error: Exception) -> str:
    """Describe an error of the check itself, with its innermost line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    origin = f"{_summary(error)} ({Path(frame.filename).name}, line {frame.lineno})"
    return f"the check itself failed, which is not your fault; please report it: {origin}"


def _summary(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()
