"""Check an exercise: a wrong answer gets a hint that names the mistake, never a traceback."""

from __future__ import annotations

import difflib
import dis
import html
import importlib
import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from labs.kit import course, progress
from labs.kit.course import Lesson
from labs.kit.show import in_notebook

LIBRARIES = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
OURS = (f"{Path(__file__).parents[1]}{os.sep}", *LIBRARIES, "<frozen")  # any other file is the learner's
COLOURS = {"PASSED": "#1f7a46", "NOT YET": "#a85d00", "CHECK FAILED": "#b3261e"}


class Mistake(Exception):
    """Raised by a check function: ``hints`` from the first nudge to nearly the answer.

    ``{type}`` and ``{value}`` in a hint stand for the first value that was checked.
    """

    def __init__(self, *hints: str) -> None:
        super().__init__(*hints)
        self.hints = hints


class Unfinished(Exception):
    """A cell needs an exercise that is not done yet; a notebook shows the message alone, without traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def needs(exercise: str, *values: object) -> None:
    """Raise Unfinished when an answer that a cell goes on with is not written yet."""
    if any(value is None or value is ... or value == [] for value in values):
        raise Unfinished(
            f"This cell goes on with your answer to {exercise}: finish that exercise first, then run it."
        )


def require(condition: object, *hints: str) -> None:
    """Raise Mistake with these hints unless ``condition`` is true."""
    if not condition:
        raise Mistake(*hints)


@dataclass(frozen=True)
class Exercise:
    id: str
    version: int
    title: str
    minutes: int
    function: Callable[..., None]


@dataclass(frozen=True)
class Result:
    """True when passed. ``str()`` is one line, the same for the same answer and hint."""

    verdict: str
    exercise: Exercise
    message: str
    more: bool = False

    def __bool__(self) -> bool:
        return self.verdict == "PASSED"

    def __str__(self) -> str:
        return f"{self.verdict} {self.exercise.id}{' — ' if self else ': '}{self.message}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message, quote=False))
        more = "<br><small>Still stuck? Run the check again for another hint.</small>" if self.more else ""
        colour = COLOURS[self.verdict]
        return (
            f'<div style="border-left:4px solid {colour};padding:.3em .8em">'
            f'<b style="background:{colour};color:#fff;padding:.1em .4em;border-radius:3px">{self.verdict}</b> '
            f"{self.exercise.id} — {text}{more}</div>"
        )

    def _ipython_display_(self) -> None:
        """Nothing: ``check`` has shown it already, also when its cell goes on."""


_exercises: dict[str, Exercise] = {}


def exercise(id: str, *, version: int, title: str, minutes: int) -> Callable[[Callable], Callable]:
    """Register a check function. A new ``version`` means that older passes no longer count."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _exercises[id] = Exercise(id, version, title, minutes, function)
        return function

    return register


def exercises(lesson: Lesson) -> list[Exercise]:
    """The exercises of a lesson in the order of their definition; none when it has no checks module."""
    module = f"{lesson.lab}.checks"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, lesson.lab):
            raise
    return [one for one in _exercises.values() if one.id.startswith(f"{lesson.number:02d}.")]


def find(id: str) -> Exercise:
    """The exercise of this id; raises ValueError with near matches."""
    known = {one.id: one for lesson in course.LESSONS for one in exercises(lesson)}
    if id not in known:
        near = difflib.get_close_matches(str(id), known, n=3, cutoff=0.4) or sorted(known)
        raise ValueError(f"There is no exercise {id!r}. Did you mean {' or '.join(map(repr, near))}?")
    return known[id]


def check(id: str, *values: object, **named: object) -> Result:
    """Check an answer, show the verdict, note it in the progress file; the Result is true when it passed.

    Raises ValueError for an unknown id; a wrong answer raises nothing.
    """
    result = _judge(find(id), values, named)
    if in_notebook():
        from IPython.display import display

        display({"text/plain": str(result), "text/html": result._repr_html_()}, raw=True)
    else:
        print(result)
    return result


def _judge(one: Exercise, values: tuple, named: dict) -> Result:
    everything = [*values, *named.values()]
    unwritten = any(_unwritten(value) for value in everything)
    try:
        one.function(*values, **named)
        hints = (one.title,) if unwritten else ()
    except Mistake as mistake:
        hints = mistake.hints or ("That is not it yet.",)
    except Exception as error:
        frame = _learners_frame(error)
        unwritten |= isinstance(error, NotImplementedError) and frame is not None
        if unwritten:
            hints = (one.title,)
        elif frame:
            hints = (_blame(error, frame),)
        else:
            return _broken(one, error)
    level = _note(one, hints[0] if hints else None)
    if not hints:
        return Result("PASSED", one, one.title)
    hint = hints[0 if unwritten else min(level, len(hints) - 1)]
    if everything:
        hint = hint.replace("{type}", _type_name(everything[0])).replace("{value}", repr(everything[0])[:60])
    prefix, more = ("not written yet: ", False) if unwritten else ("", level < len(hints) - 1)
    return Result("NOT YET", one, prefix + hint, more)


def _note(one: Exercise, mistake: str | None) -> int:
    try:
        return progress.note(one.id, one.version, passed=mistake is None, mistake=mistake)
    except OSError as error:
        print(f"Your progress could not be saved ({error}); the verdict stands.")
        return 0


def _type_name(value: object) -> str:
    return "`...`" if value is ... else type(value).__name__.replace("NoneType", "None")


def _unwritten(value: object) -> bool:
    """``...``, None, or a function whose body is nothing more than that."""
    if not isinstance(value, FunctionType):
        return value is None or value is ...
    steps = [step for step in dis.get_instructions(value) if step.opname not in ("RESUME", "NOP")]
    names = {step.opname for step in steps}
    constants = [step.argval for step in steps if step.opname != "RETURN_VALUE"]
    return names <= {"LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"} and all(
        c in (None, ...) for c in constants
    )


def _learners_frame(error: Exception) -> traceback.FrameSummary | None:
    """The innermost line of the learner's own code on the way to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(OURS)]
    return theirs[-1] if theirs else None


def _blame(error: Exception, frame: traceback.FrameSummary) -> str:
    file = "" if "ipykernel" in frame.filename else f" of {Path(frame.filename).name}"
    line = linecache.getline(frame.filename, frame.lineno).strip()
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"your code raised {text}, in `{frame.name}`, line {frame.lineno}{file}: `{line}`"


def _broken(one: Exercise, error: Exception) -> Result:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    text = (
        f"the check itself failed, which is not your fault; please report it: {type(error).__name__}: {error}"
    )
    return Result("CHECK FAILED", one, f"{text} ({where})")
