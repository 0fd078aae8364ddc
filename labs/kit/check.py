"""Check an exercise: a wrong answer gets a hint that names the mistake, never a traceback."""

from __future__ import annotations

import difflib
import dis
import html
import os
import re
import sysconfig
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from types import FunctionType, MappingProxyType

from labs.kit import course, progress
from labs.kit.course import Exercise, exercise, exercises
from labs.kit.show import say

__all__ = ["Mistake", "Result", "Unfinished", "check", "exercise", "exercises", "needs", "require"]
__all__ += ["require_function", "require_names", "require_number"]

LIBRARIES = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
ROOT = Path(__file__).parents[2]
OURS = (
    *(f"{ROOT / name}{os.sep}" for name in ("engineroom", "labs", "tools")),
    *LIBRARIES,
    "<frozen",
)  # any other file is the learner's
COLOURS = {"PASSED": "#1f7a46", "NOT YET": "#a85d00", "CHECK FAILED": "#b3261e"}
MORE = "<br><small>Still stuck? Run the check again for another hint.</small>"
EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}  # bytecode that does nothing


class Mistake(Exception):
    """Hints, from a nudge to nearly the answer; ``{type}``, ``{value}`` in one stand for the first value checked."""


class Unfinished(Exception):
    """A cell needs an exercise that is not done yet; a notebook shows the message alone, without traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def needs(exercise: str, *values: object) -> None:
    """Raise Unfinished when an answer that a cell goes on with is not written yet."""
    if any(value is None or value is ... or value == [] for value in values):
        raise Unfinished(f"This cell goes on with your answer to {exercise}: finish that first, then run it.")


def require(condition: object, *hints: str) -> None:
    """Raise Mistake with these hints unless ``condition`` is true."""
    if not condition:
        raise Mistake(*hints)


def require_function(value: object, name: str) -> None:
    """Raise Mistake unless ``value``, an argument of the check, can be called."""
    require(callable(value), f"I expected the function `{name}`, got {{type}}. Pass it uncalled.")


def require_number(got: object, mistakes: Mapping[float, str] = MappingProxyType({})) -> None:
    """Raise Mistake unless what the learner's function gave is an int or a float, and, within a thousandth, none of
    ``mistakes``: what a known error of thought gives, and the hint for it.
    """
    if not isinstance(got, int | float):
        raise Mistake(f"The function gave {got!r}, not a number. Does it `return`?")
    for value, hint in mistakes.items():
        require(not isclose(got, value, rel_tol=1e-3), hint)


def require_names(values: object, names: Collection[str]) -> None:
    """Raise Mistake unless ``values``, the first argument of the check, is a dictionary with these names, all given."""
    if not isinstance(values, dict) or set(values) != set(names):
        raise Mistake(f"I expected a dictionary with {', '.join(names)}, got {{type}}.")
    empty = [name for name, value in values.items() if value is ... or value is None]
    require(not empty, f"Still `...`: {', '.join(empty)}.")


@dataclass(frozen=True)
class Result:
    """True when passed. ``str()`` is one line, the same for the same answer and hint."""

    verdict: str
    exercise: str
    message: str
    more: bool = False

    def __bool__(self) -> bool:
        return self.verdict == "PASSED"

    def __str__(self) -> str:
        return f"{self.verdict} {self.exercise}{' — ' if self else ': '}{self.message}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.message, quote=False))
        colour = COLOURS[self.verdict]
        return (
            f'<div style="border-left:4px solid {colour};padding:.3em .8em">'
            f'<b style="background:{colour};color:#fff;padding:.1em .4em;border-radius:3px">{self.verdict}</b> '
            f"{self.exercise} — {text}{MORE if self.more else ''}</div>"
        )

    def _ipython_display_(self) -> None:
        """Nothing: ``check`` has shown it already, also when its cell goes on."""


def check(id: str, *values: object) -> Result:
    """Check an answer, show the verdict, note it in the progress file; the Result is true when it passed.

    Raises ValueError for an unknown id; a wrong answer raises nothing.
    """
    known = {one.id: one for lesson in course.LESSONS for one in exercises(lesson)}
    if id not in known:
        near = difflib.get_close_matches(str(id), known, n=3, cutoff=0.4) or sorted(known)
        raise ValueError(f"There is no exercise {id!r}. Did you mean {' or '.join(map(repr, near))}?")
    result = _judge(known[id], values)
    say(str(result), result._repr_html_())
    return result


def _judge(one: Exercise, values: tuple[object, ...]) -> Result:
    unwritten = any(map(_unwritten, values))
    try:
        one.function(*values)
        hints = (one.title,) if unwritten else ()
    except Mistake as mistake:
        hints = mistake.args or ("That is not it yet.",)
    except Exception as error:
        theirs, text = _blame(error)
        if not (unwritten or theirs):
            return Result("CHECK FAILED", one.id, text)
        unwritten |= isinstance(error, NotImplementedError)
        hints = (one.title if unwritten else text,)
    level = _note(one, hints)
    if not hints:
        return Result("PASSED", one.id, one.title)
    if unwritten:
        return Result("NOT YET", one.id, f"not written yet: {_filled(hints[0], values)}")
    last = len(hints) - 1
    return Result("NOT YET", one.id, _filled(hints[min(level, last)], values), more=level < last)


def _filled(hint: str, values: tuple[object, ...]) -> str:
    first = values[0] if values else None
    kind = {type(None): "None", type(...): "`...`"}.get(type(first), type(first).__name__)
    return hint.replace("{type}", kind).replace("{value}", repr(first)[:60])


def _note(one: Exercise, hints: tuple[str, ...]) -> int:
    try:
        return progress.note(one.id, one.version, passed=not hints, mistake=hints[0] if hints else None)
    except OSError as error:
        print(f"Your progress could not be saved ({error}); the verdict stands.")
        return 0


def _unwritten(value: object) -> bool:
    """``...``, None, or a function whose body is nothing more than that."""
    if not isinstance(value, FunctionType):
        return value is None or value is ...
    steps = {step.opname for step in dis.get_instructions(value)}
    return steps <= EMPTY and {*value.__code__.co_consts} <= {None, ..., value.__doc__}


def _blame(error: Exception) -> tuple[bool, str]:
    """Whether the learner's own code raised it, and where: their innermost line, else ours."""
    text, frames = (
        traceback.format_exception_only(error)[-1].strip(),
        traceback.extract_tb(error.__traceback__),
    )
    theirs = [frame for frame in frames if not frame.filename.startswith(OURS)]
    last = (theirs or frames)[-1]
    name = Path(last.filename).name
    if not theirs:
        where = f"{text} ({name}, line {last.lineno})"
        return False, f"the check itself failed, which is not your fault; please report it: {where}"
    file = "" if "ipykernel" in last.filename else f" of {name}"
    return True, f"your code raised {text}, in `{last.name}`, line {last.lineno}{file}: `{last.line}`"
