"""Rules for exercises: each has its check, each check passed, and the learner's copy gives no answer away.

An open challenge has a judge in place of a check.
"""

from __future__ import annotations

import ast
from collections import Counter

from labs.kit.check import exercises as registered_exercises
from labs.kit.course import LESSONS
from tools.author.files import LessonNotFound
from tools.author.gates.notebook_file import NotebookFile, Violation, called, output_text, tree
from tools.author.regions import SOLUTION, Region
from tools.author.source import LessonSource, SourceCell


def registered(lesson: LessonSource) -> set[str]:
    """Return the ids of the lesson's exercises. Raises LessonNotFound when labs/kit/course.py does not list it."""
    entry = next((entry for entry in LESSONS if entry.slug == lesson.path.stem), None)
    if entry is None:
        slugs = ", ".join(entry.slug for entry in LESSONS)
        raise LessonNotFound(f"labs/kit/course.py does not list {lesson.path.stem!r}; it lists {slugs}")
    return {exercise.id for exercise in registered_exercises(entry)}


def check_calls(source: str) -> list[str | None]:
    """Return the ids that a code cell checks, in order; None for an id that is not a string literal."""
    nodes = ast.walk(tree(source))
    calls = [node for node in nodes if isinstance(node, ast.Call) and called(node) == "check"]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [_literal(call.args[0]) if call.args else None for call in calls]


def calls_a_judge(source: str) -> bool:
    """Return True when a code cell has a call such as ``challenge.judge(…)``."""
    return any(
        called(node).endswith(".judge") for node in ast.walk(tree(source)) if isinstance(node, ast.Call)
    )


def challenge(file: NotebookFile) -> list[Violation]:
    """The lesson's open challenge was judged, and its example reached the bar."""
    judged = [(number, cell) for number, cell in file.cells("code") if calls_a_judge(cell.source)]
    violations = (
        [] if judged else file.violation(0, "challenge", "no call of a judge, such as challenge.judge(…).")
    )
    for cell_number, cell in judged:
        if not any("BAR REACHED" in output_text(output) for output in cell.outputs):
            violations += file.violation(cell_number, "challenge", "its output does not say BAR REACHED.")
    return violations


def _literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def exercises(file: NotebookFile, lesson: LessonSource, known: set[str]) -> list[Violation]:
    """Every registered exercise is checked once and passed, no other is checked, and every region has a check."""
    violations: list[Violation] = []
    check_counts: Counter[str] = Counter()
    for cell_number, cell in file.cells("code"):
        for name in check_calls(cell.source):
            if name not in known:
                message = f"{name!r} is not registered; there are: {', '.join(sorted(known)) or 'none'}."
                violations += file.violation(cell_number, "exercise", message)
                continue
            check_counts[name] += 1
            texts = [output_text(output) for output in cell.outputs]
            if not any(text.startswith(f"PASSED {name} ") for text in texts):
                violations += file.violation(
                    cell_number, "exercise", f"{name}: its output does not start with PASSED."
                )
    for name in sorted(known):
        if check_counts[name] != 1:
            violations += file.violation(
                0, "exercise", f"{name} is checked {check_counts[name]} times; expected once."
            )
    if not check_counts:
        violations += file.violation(0, "exercise", "no check(…): a lesson has at least one exercise.")
    return violations + challenge(file) + _unchecked_regions(file, lesson)


def _unchecked_regions(file: NotebookFile, lesson: LessonSource) -> list[Violation]:
    """Every region has a check or a judge in its cell or after it, before the next ``## `` heading."""
    violations: list[Violation] = []
    unchecked_lines: list[int] = []
    for cell in lesson.cells:
        if cell.kind == "markdown" and any(str(line).startswith("## ") for line in cell.parts):
            violations += _unchecked(file, lesson, unchecked_lines)
            unchecked_lines = []
        unchecked_lines += [part.line for part in cell.parts if isinstance(part, Region)]
        if cell.kind == "code" and (check_calls(_solved(cell)) or calls_a_judge(_solved(cell))):
            unchecked_lines = []
    return violations + _unchecked(file, lesson, unchecked_lines)


def _unchecked(file: NotebookFile, lesson: LessonSource, lines: list[int]) -> list[Violation]:
    messages = (
        f"{lesson.path.name}:{line}: no check(…) after this region, in its section." for line in lines
    )
    return [violation for message in messages for violation in file.violation(0, "exercise", message)]


def _solved(cell: SourceCell) -> str:
    parts = ([part] if isinstance(part, str) else part.solved() for part in cell.parts)
    return "\n".join(line for lines in parts for line in lines)


def learner_file(file: NotebookFile, lesson: LessonSource) -> list[Violation]:
    """The learner's copy has no output and no answer, and it has every check."""
    violations: list[Violation] = []
    checks: list[str | None] = []
    for cell_number, cell in file.cells("code"):
        checks += check_calls(cell.source)
        if cell.outputs or cell.execution_count is not None:
            violations += file.violation(
                cell_number, "learner", "it has outputs or a count: hand it out without."
            )
        if SOLUTION in map(str.strip, cell.source.splitlines()) or "### BEGIN" in cell.source:
            violations += file.violation(cell_number, "learner", "it has a solution marker.")
    for region in regions(lesson):
        violations += _given_away(file, region)
    expected = [name for cell in lesson.cells if cell.kind == "code" for name in check_calls(_solved(cell))]
    if checks != expected:
        violations += file.violation(0, "learner", f"checks {checks}, the source has {expected}.")
    return violations


def regions(lesson: LessonSource) -> list[Region]:
    """Return all solution regions of the lesson."""
    return [part for cell in lesson.cells for part in cell.parts if isinstance(part, Region)]


def _given_away(file: NotebookFile, region: Region) -> list[Violation]:
    answer = _lines("\n".join(region.solution))
    for cell_number, cell in enumerate(file.notebook.cells, 1):
        lines = _lines(cell.source)
        if any(lines[i : i + len(answer)] == answer for i in range(len(lines))):
            return file.violation(
                cell_number, "learner", f"it contains the answer of line {region.line} of the source."
            )
    return []


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
