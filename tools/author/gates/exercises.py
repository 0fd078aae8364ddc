"""Rules for exercises: each has its check, each check is real, the learner's copy gives nothing away."""

from __future__ import annotations

import ast
from collections import Counter

from labs.kit.check import exercises as registered_exercises
from labs.kit.course import LESSONS
from tools.author.gates.book import Book, Problem, called, output_text, tree
from tools.author.regions import SOLUTION, Region
from tools.author.source import Cell, Lesson


def registered(lesson: Lesson) -> set[str]:
    """The ids of the lesson's exercises. Raises ValueError for a lesson that labs/kit/course.py lacks."""
    entry = next((entry for entry in LESSONS if entry.slug == lesson.path.stem), None)
    if entry is None:
        have = ", ".join(entry.slug for entry in LESSONS)
        raise ValueError(f"labs/kit/course.py does not list {lesson.path.stem!r}; it lists {have}")
    return {exercise.id for exercise in registered_exercises(entry)}


def check_calls(source: str) -> list[str | None]:
    """The ids that a code cell checks, in order; None for an id that is not a plain string."""
    calls = [n for n in ast.walk(tree(source)) if isinstance(n, ast.Call) and called(n) == "check"]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    first = [call.args[0] if call.args else None for call in calls]
    return [a.value if isinstance(a, ast.Constant) and isinstance(a.value, str) else None for a in first]


def exercises(book: Book, lesson: Lesson, known: set[str]) -> list[Problem]:
    """Each registered exercise is checked once, no other is; each region has a check after it; all passed."""
    found: list[Problem] = []
    used: Counter[str] = Counter()
    for number, cell in book.cells("code"):
        for name in check_calls(cell.source):
            if name not in known:
                have = ", ".join(sorted(known)) or "none"
                found += book.problem(number, "exercise", f"{name!r} is not registered; there are: {have}.")
                continue
            used[name] += 1
            texts = [output_text(output) for output in cell.outputs]
            if not any(text.startswith(f"PASSED {name} ") for text in texts):
                found += book.problem(number, "exercise", f"{name}: its output does not start with PASSED.")
    for name in sorted(known):
        if used[name] != 1:
            found += book.problem(0, "exercise", f"{name} is checked {used[name]} times; expected once.")
    if not used:
        found += book.problem(0, "exercise", "no check(…): a lesson has at least one exercise.")
    return found + _unchecked_regions(book, lesson)


def _unchecked_regions(book: Book, lesson: Lesson) -> list[Problem]:
    """A region has a check in its cell or after it, before the next ``## `` heading."""
    found: list[Problem] = []
    waiting: list[int] = []
    for cell in lesson.cells:
        if cell.kind == "markdown" and any(str(line).startswith("## ") for line in cell.parts):
            found += _unchecked(book, lesson, waiting)
            waiting = []
        waiting += [part.line for part in cell.parts if isinstance(part, Region)]
        if cell.kind == "code" and check_calls(_solved(cell)):
            waiting = []
    return found + _unchecked(book, lesson, waiting)


def _unchecked(book: Book, lesson: Lesson, lines: list[int]) -> list[Problem]:
    messages = (
        f"{lesson.path.name}:{line}: no check(…) after this region, in its section." for line in lines
    )
    return [problem for message in messages for problem in book.problem(0, "exercise", message)]


def _solved(cell: Cell) -> str:
    parts = ([part] if isinstance(part, str) else part.solved() for part in cell.parts)
    return "\n".join(line for lines in parts for line in lines)


def learner_file(book: Book, lesson: Lesson) -> list[Problem]:
    """The learner's copy holds no output and no answer, and has every region and check."""
    found: list[Problem] = []
    checks: list[str | None] = []
    for number, cell in book.cells("code"):
        checks += check_calls(cell.source)
        if cell.outputs or cell.execution_count is not None:
            found += book.problem(number, "learner", "it has outputs or a count: hand it out clean.")
        if SOLUTION in map(str.strip, cell.source.splitlines()) or "### BEGIN" in cell.source:
            found += book.problem(number, "learner", "it has a solution marker.")
    for region in regions(lesson):
        found += _given_away(book, region)
    wanted = [name for cell in lesson.cells if cell.kind == "code" for name in check_calls(_solved(cell))]
    if checks != wanted:
        found += book.problem(0, "learner", f"checks {checks}, the source has {wanted}.")
    return found


def regions(lesson: Lesson) -> list[Region]:
    return [part for cell in lesson.cells for part in cell.parts if isinstance(part, Region)]


def _given_away(book: Book, region: Region) -> list[Problem]:
    answer = _lines("\n".join(region.solution))
    for number, cell in enumerate(book.notebook.cells, 1):
        given = _lines(cell.source)
        if any(given[i : i + len(answer)] == answer for i in range(len(given))):
            return book.problem(
                number, "learner", f"it holds the answer of line {region.line} of the source."
            )
    return []


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
