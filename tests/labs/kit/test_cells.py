"""Which cell of a lesson's notebook defines a name, for all notebooks of the course."""

from __future__ import annotations

import builtins
from pathlib import Path

import nbformat
import pytest

from labs.kit import cells, course
from labs.kit.cells import defined_names, defining_cell, find_origin, lesson_cells, open_notebook
from labs.kit.check import CheckResult, check, needs

SLUGS = [lesson.slug for lesson in course.LESSONS if (cells.NOTEBOOKS / f"{lesson.slug}.ipynb").exists()]


@pytest.mark.parametrize("slug", SLUGS)
def test_every_exercise_of_a_lesson_is_the_origin_of_a_name(slug: str) -> None:
    exercises = {
        cell.exercise for cell in lesson_cells(Path(f"{slug}.ipynb"), "") if cell.names and cell.exercise
    }
    assert exercises
    assert all(exercise.startswith(slug[:2]) for exercise in exercises)


@pytest.mark.parametrize("slug", SLUGS)
def test_every_cell_finds_its_own_lesson(slug: str) -> None:
    """Without the notebook's name, as in a front end that does not tell it."""
    notebook = nbformat.read(cells.NOTEBOOKS / f"{slug}.ipynb", as_version=4)
    expected = lesson_cells(Path(f"{slug}.ipynb"), "")
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code" and "check(" in cell.source]
    assert sources and all(lesson_cells(None, source) == expected for source in sources)


def test_names_of_a_cell() -> None:
    source = "import a.b, c as d\nfrom e import f\n%magic\nfor g in h:\n    i = [j for j in k]\ndef m(n):\n    o = 1\n"
    names = defined_names(source)
    assert {"a", "d", "f", "g", "i", "m"} <= names
    assert names.isdisjoint({"n", "o", "h", "k", *dir(builtins)})
    assert defined_names("x = await f()") == {"x"}
    assert defined_names("x = (") == set()


def test_a_broken_notebook_counts_as_absent(tmp_path: Path) -> None:
    for text in ("", "{}", '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}'):
        (tmp_path / "mine.ipynb").write_text(text)
        assert lesson_cells(tmp_path / "mine.ipynb", "nowhere_to_be_found = 1") == []


def test_a_learners_own_notebook_is_read_first(tmp_path: Path) -> None:
    code = [nbformat.v4.new_markdown_cell("# Title\n## Part"), nbformat.v4.new_code_cell("mine = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=code), tmp_path / "02_measure.ipynb")
    cell = defining_cell("mine", lesson_cells(tmp_path / "02_measure.ipynb", ""))
    assert cell and cell.advice == "run the cell under “Part” first"


def test_the_origin_of_a_name_is_the_exercise_that_its_cells_wait_for(tmp_path: Path) -> None:
    sources = [
        "import a",
        "# ✏️ YOUR CODE\nlimits = ...\nresult = check('05.limits', limits)",
        "needs('05.limits', result or None)\nconfig = a.build(limits)",
        "engine = a.make(config)",
        "reply = engine.run()",
    ]
    cells_of_lesson = [nbformat.v4.new_code_cell(source) for source in sources]
    path = tmp_path / "05_mine.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), *cells_of_lesson]), path
    )
    lesson = lesson_cells(path, "")

    def advice(name: str, **namespace: object) -> str:
        cell = find_origin(name, lesson, {"check": check, "needs": needs} | namespace)
        return cell.advice if cell else ""

    failed = CheckResult("NOT YET", "05.limits", "")
    passed = CheckResult("PASSED", "05.limits", "")
    assert advice("reply", a=1, limits=..., result=failed) == "finish 05.limits first"
    assert advice("limits", a=1) == "finish 05.limits first"
    assert advice("reply", a=1, limits=2, result=failed) == "finish 05.limits first"
    assert advice("reply", a=1, limits=2, result=passed) == "run the cell under “A” first"
    assert find_origin("reply", lesson, {"a": 1, "limits": 2, "result": passed, "needs": needs}) == lesson[2]
    assert find_origin("reply", lesson, {"a": 1, "config": 3}) == lesson[3]
    assert find_origin("reply", lesson, {"engine": 3}) == lesson[4]
    assert find_origin("reply", lesson, {}) == lesson[0]
    assert find_origin("nowhere", lesson, {}) is None


def test_the_open_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert open_notebook({}) is None
    assert open_notebook({"__vsc_ipynb_file__": "/a/b.ipynb"}) == Path("/a/b.ipynb")
    monkeypatch.setenv("JPY_SESSION_NAME", "console-1")
    assert open_notebook({}) is None
    monkeypatch.setenv("JPY_SESSION_NAME", "c/d.ipynb")
    assert open_notebook({}) == Path("c/d.ipynb")
