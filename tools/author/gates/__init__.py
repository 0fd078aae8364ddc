"""Gates: what a lesson must be before it is handed out, as rules from a notebook to a list of problems.

pytest with nbval says little about a notebook whose counts were stripped, whose shell command failed, or that
printed "skipping" (nbval compares nothing without a stored count: https://nbval.readthedocs.io/). So the
files themselves are read here. A rule that names itself in ``ALLOWABLE`` can be lifted for one cell by
``# allow RULE: reason`` in code or ``<!-- allow RULE: reason -->`` in markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.author.build import executed_path, learner_path
from tools.author.files import ROOT, lesson_sources
from tools.author.gates import code, executed, exercises, prose
from tools.author.gates.book import Book, Problem
from tools.author.source import Lesson, read

__all__ = ["Book", "Problem", "all_rules", "problems", "problems_of"]


def problems(names: Sequence[str] = (), root: Path = ROOT) -> list[Problem]:
    """All problems of the committed notebooks. Raises FileNotFoundError when there is no lesson at all."""
    found: list[Problem] = []
    for path in lesson_sources(list(names), root):
        found += problems_of(read(path), root)
    return found


def problems_of(lesson: Lesson, root: Path = ROOT) -> list[Problem]:
    """The problems of one lesson's two notebooks."""
    paths = learner_path(lesson, root), executed_path(lesson, root)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        return [Problem(path.name, 0, "missing", "build it first: engineroom build") for path in missing]
    learner, solution = (Book.read(path, root) for path in paths)
    return all_rules(learner, solution, lesson, exercises.registered(lesson))


def all_rules(learner: Book, solution: Book, lesson: Lesson, known: set[str]) -> list[Problem]:
    """Every rule; ``known`` are the ids of the lesson's exercises."""
    broken = [problem for book in (learner, solution) for problem in code.compiles(book)]
    if broken:
        return broken
    found = [problem for book in (learner, solution) for rule in code.RULES for problem in rule(book)]
    found += [problem for rule in (*prose.RULES, *executed.RULES) for problem in rule(solution)]
    return found + exercises.learner_file(learner, lesson) + exercises.exercises(solution, lesson, known)
