"""Each gate over a whole lesson rejects the notebook that it is meant to reject; a clean lesson passes all gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tests.tools.author.lesson_case import LESSON, LessonCase, printed
from tools.author.gates import problems


def test_a_clean_lesson_passes(case: LessonCase) -> None:
    assert case.violations() == []


def no_counts(case: LessonCase) -> None:
    for cell in case.code_cells:
        cell.execution_count = None


def ran_twice(case: LessonCase) -> None:
    case.code_cells[1].execution_count = 5


def nothing_ran(case: LessonCase) -> None:
    case.solution.cells = [cell for cell in case.solution.cells if cell.cell_type == "markdown"]


def output_lost(case: LessonCase) -> None:
    case.code_cells[1].outputs = []


def check_failed(case: LessonCase) -> None:
    case.code_cells[0].outputs = [printed("NOT YET 07.rate: divide by the time\n")]


def other_check_passed(case: LessonCase) -> None:
    case.code_cells[0].outputs = [printed("PASSED 07.rates — Another\n")]


def not_registered(case: LessonCase) -> None:
    case.add_code('check("07.other", 1)', printed("PASSED 07.other — x\n"))


def id_is_computed(case: LessonCase) -> None:
    case.add_code('check("07." + "rate", 1)', printed("PASSED 07.rate — x\n"))


def checked_twice(case: LessonCase) -> None:
    case.add_code('check("07.rate", 1)', printed("PASSED 07.rate — x\n"))


def never_checked(case: LessonCase) -> None:
    case.exercise_ids.add("07.forgotten")


def check_inside_the_region(case: LessonCase) -> None:
    marker = "### STARTER"
    text = LESSON.replace('\ncheck("07.rate", rate)', "").replace(marker, f'check("07.rate", rate)\n{marker}')
    case.write_source(text)


def region_without_check(case: LessonCase) -> None:
    case.write_source(
        LESSON.replace("# ## Recap", "# ## Recap\n\n# %%\n### BEGIN SOLUTION\ny = 1\n### END SOLUTION")
    )


def challenge_without_judge(case: LessonCase) -> None:
    case.write_source(LESSON.replace("await challenge.judge(flags)", 'check("07.rate", rate)'))


def bar_not_reached(case: LessonCase) -> None:
    case.code_cells[-1].outputs = [printed("NOT YET 07.challenge — 4 tokens/s\n")]


def no_cost(case: LessonCase) -> None:
    case.write_source(LESSON.replace("## The cost", "## The price"))


def no_recap(case: LessonCase) -> None:
    case.write_source(LESSON.replace("## Recap", "## End").replace("#recap", "#end"))


def sections_swapped(case: LessonCase) -> None:
    text = (
        LESSON.replace("## Recap", "## X")
        .replace("## On an H100", "## Recap")
        .replace("## X", "## On an H100")
    )
    case.write_source(text)


def no_title(case: LessonCase) -> None:
    for cell in case.solution.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("#", "").replace("(recap)", "")


def learner_has_output(case: LessonCase) -> None:
    case.learner.cells[2].outputs = [printed("3\n")]


def learner_has_count(case: LessonCase) -> None:
    case.learner.cells[2].execution_count = 1


def learner_has_answer(case: LessonCase) -> None:
    case.learner.cells[3].source += "\n    rate = 6 / 2"


def learner_has_marker(case: LessonCase) -> None:
    case.learner.cells[2].source += "\n# solution"


def learner_lost_a_check(case: LessonCase) -> None:
    case.learner.cells[2].source = "rate = ..."


BREAKS: list[tuple[str, Callable[[LessonCase], None]]] = [
    ("ran", no_counts),
    ("ran", ran_twice),
    ("ran", nothing_ran),
    ("comparable", output_lost),
    ("comparable", no_counts),
    ("exercise", check_failed),
    ("exercise", other_check_passed),
    ("exercise", not_registered),
    ("exercise", id_is_computed),
    ("exercise", checked_twice),
    ("exercise", never_checked),
    ("exercise", nothing_ran),
    ("learner", check_inside_the_region),
    ("exercise", region_without_check),
    ("sections", no_recap),
    ("sections", sections_swapped),
    ("sections", no_cost),
    ("challenge", challenge_without_judge),
    ("challenge", bar_not_reached),
    ("headings", no_title),
    ("learner", learner_has_output),
    ("learner", learner_has_count),
    ("learner", learner_has_answer),
    ("learner", learner_has_marker),
    ("learner", learner_lost_a_check),
]


@pytest.mark.parametrize(("rule", "sabotage"), BREAKS, ids=lambda value: getattr(value, "__name__", value))
def test_sabotage(rule: str, sabotage: Callable[[LessonCase], None], case: LessonCase) -> None:
    sabotage(case)
    violations = case.violations()
    assert rule in {violation.rule for violation in violations}
    assert all(str(violation).startswith(("notebooks/07", "solutions/07")) for violation in violations)


def test_a_notebook_that_was_never_built_is_a_problem(case: LessonCase) -> None:
    assert [violation.rule for violation in problems(root=case.root)] == ["missing", "missing"]


def test_no_lesson_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no lesson"):
        problems(root=tmp_path)


def test_the_clean_notebooks_are_valid(case: LessonCase) -> None:
    nbformat.validate(case.solution)
    nbformat.validate(case.learner)
