"""Gates: rules that a lesson must keep before it is handed out. A rule maps a notebook to a list of violations.

pytest with nbval says little about a notebook whose counts were stripped, whose shell command failed, or that printed
"skipping" (nbval compares nothing without a stored count: https://nbval.readthedocs.io/). So the gates read the files
themselves. A rule that ``ALLOWABLE`` lists can be lifted for one cell by ``# allow RULE: reason`` in code or
``<!-- allow RULE: reason -->`` in markdown. commands.py is the gate over the commands on all pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.author.build import executed_path, learner_path
from tools.author.files import ROOT, lesson_sources
from tools.author.gates import code, executed, exercises, prose, terminal
from tools.author.gates.notebook_file import NotebookFile, Violation
from tools.author.source import LessonSource, read

__all__ = ["NotebookFile", "Violation", "all_rules", "problems", "problems_of"]


def problems(names: Sequence[str] = (), root: Path = ROOT) -> list[Violation]:
    """Return the violations of the committed notebooks. Raises LessonNotFound when there is no lesson."""
    violations: list[Violation] = []
    for path in lesson_sources(list(names), root):
        violations += problems_of(read(path), root)
    return violations


def problems_of(lesson: LessonSource, root: Path = ROOT) -> list[Violation]:
    """Return the violations of one lesson's two notebooks."""
    paths = learner_path(lesson, root), executed_path(lesson, root)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        return [Violation(path.name, 0, "missing", "build it first: engineroom lessons") for path in missing]
    learner, solution = (NotebookFile.read(path, root) for path in paths)
    return all_rules(learner, solution, lesson, exercises.registered(lesson))


def all_rules(
    learner: NotebookFile, solution: NotebookFile, lesson: LessonSource, known: set[str]
) -> list[Violation]:
    """Apply every rule; ``known`` are the ids of the lesson's exercises."""
    broken = [violation for file in (learner, solution) for violation in code.compiles(file)]
    if broken:
        return broken
    violations = [
        violation for file in (learner, solution) for rule in code.RULES for violation in rule(file)
    ]
    rules = (*prose.RULES, *executed.RULES, *terminal.RULES)
    violations += [violation for rule in rules for violation in rule(solution)]
    return violations + exercises.learner_file(learner, lesson) + exercises.exercises(solution, lesson, known)
