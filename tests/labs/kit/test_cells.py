"""Which cell of a lesson's notebook defines a name, for all notebooks of the course."""

from __future__ import annotations

import builtins
from pathlib import Path

import nbformat
import pytest

from labs.kit import cells, course
from labs.kit.cells import defined_names, defining_cell, lesson_cells, open_notebook

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


def test_the_open_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert open_notebook({}) is None
    assert open_notebook({"__vsc_ipynb_file__": "/a/b.ipynb"}) == Path("/a/b.ipynb")
    monkeypatch.setenv("JPY_SESSION_NAME", "console-1")
    assert open_notebook({}) is None
    monkeypatch.setenv("JPY_SESSION_NAME", "c/d.ipynb")
    assert open_notebook({}) == Path("c/d.ipynb")
