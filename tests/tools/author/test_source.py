"""Lesson sources: regions, both notebooks, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.author.regions import SourceError
from tools.author.source import dumps, read

LESSON = '''\
# %% [markdown]
# # A lesson

# %% [markdown] tags=["instructor"]
# Say this aloud.

# %% tags=["parameters"]
model = "models/course"

# %% tags=["nbval-check-output"]
### BEGIN SOLUTION
rate = 6 / 2
### STARTER
# # requests per second
# rate = ...  # how many finished, over how long?
### END SOLUTION
print(rate)


# %%
def admit(free: int, need: int) -> bool:
    """Whether a request fits."""
    if need > 0:
        ### BEGIN SOLUTION
        return free >= need
        ### END SOLUTION
    return True


# NBVAL_CHECK_OUTPUT
# cat the two together
# %time admit(1, 2)
'''


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    path = tmp_path / "07_lesson.py"
    path.write_text(LESSON, encoding="utf-8")
    return path


def sources(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells]


def test_the_solution_keeps_the_answer_and_drops_the_starter(lesson: Path) -> None:
    notebook = read(lesson).solution()
    assert sources(notebook)[3] == "# solution\nrate = 6 / 2\nprint(rate)"
    assert "Say this aloud." in sources(notebook)[1]
    assert notebook.cells[3].metadata.tags == ["nbval-check-output"]


def test_the_learner_gets_the_starter_and_no_answer(lesson: Path) -> None:
    notebook = read(lesson).learner()
    starter = "# ✏️ YOUR CODE\n# requests per second\nrate = ...  # how many finished, over how long?"
    assert sources(notebook)[2] == f"{starter}\nprint(rate)"
    body = "        # ✏️ YOUR CODE\n        ...  # write your answer here\n    return True"
    assert body in sources(notebook)[3]
    text = "\n".join(sources(notebook))
    for hidden in ("6 / 2", "free >= need", "Say this aloud", "NBVAL", "SOLUTION", "STARTER"):
        assert hidden not in text
    assert notebook.cells[1].metadata == {"tags": ["parameters"]}
    assert "tags" not in notebook.cells[2].metadata
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")


def test_only_allowed_magics_are_uncommented(lesson: Path) -> None:
    assert sources(read(lesson).learner())[3].endswith("# cat the two together\n%time admit(1, 2)")


def test_the_same_source_gives_the_same_bytes_and_valid_ids(lesson: Path) -> None:
    lesson.write_text(LESSON + "\n# %%\nx = 1\n\n# %%\nx = 1\n", encoding="utf-8")
    first, second = (dumps(read(lesson).learner()) for _ in range(2))
    assert first == second
    notebook = nbformat.reads(first, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_a_new_cell_leaves_the_ids_of_the_others(lesson: Path) -> None:
    before = {cell.source: cell.id for cell in read(lesson).learner().cells}
    lesson.write_text("# %%\nfirst = 1\n\n" + LESSON, encoding="utf-8")
    after = {cell.source: cell.id for cell in read(lesson).learner().cells}
    assert before.items() <= after.items()


WRONG = {
    "nested": (
        "### BEGIN SOLUTION\nx = 1\n### BEGIN SOLUTION\n### END SOLUTION",
        4,
        "inside the region of line 2",
    ),
    "not ended": ("y = 1\n### BEGIN SOLUTION\nx = 1", 3, "no '### END SOLUTION'"),
    "not begun": ("x = 1\n### END SOLUTION", 3, "without a '### BEGIN SOLUTION'"),
    "starter outside": ("x = 1\n### STARTER\n# x = 2", 3, "without a '### BEGIN SOLUTION'"),
    "two starters": (
        "### BEGIN SOLUTION\nx = 1\n### STARTER\n# x = 2\n### STARTER\n# x\n### END SOLUTION",
        6,
        "a second '### STARTER'",
    ),
    "across cells": ("### BEGIN SOLUTION\nx = 1\n\n# %%\n### END SOLUTION", 2, "in its cell"),
    "empty solution": ("### BEGIN SOLUTION\n### STARTER\n# x = ...\n### END SOLUTION", 2, "no solution"),
    "empty starter": ("### BEGIN SOLUTION\nx = 1\n### STARTER\n### END SOLUTION", 2, "without a line"),
    "starter is code": (
        "### BEGIN SOLUTION\nx = 1\n### STARTER\nx = 2\n### END SOLUTION",
        5,
        "must be a comment",
    ),
    "broken starter": (
        "### BEGIN SOLUTION\nx = 1\n### STARTER\n# x = = 2\n### END SOLUTION",
        2,
        "does not compile",
    ),
    "broken code": ("x = 1\ny = = 2", 3, "does not compile"),
    "misspelt": ("### begin solution\nx = 1\n### END SOLUTION", 2, "is not a marker"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_region_names_file_and_line(name: str, tmp_path: Path) -> None:
    cell, line, why = WRONG[name]
    path = tmp_path / "07_lesson.py"
    path.write_text(f"# %%\n{cell}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=why) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# %% [markdown]\n# ### BEGIN SOLUTION\n# x\n", "not into markdown"),
        ("# %% [raw]\n# x\n", "a raw cell"),
        ('# %% tags=["instructor"]\nx = 1\n', "only a markdown cell"),
        ("x = 1\n\n# %%\ny = 1\n", "must begin with"),
    ],
)
def test_a_wrong_cell_names_file_and_line(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "07_lesson.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=why):
        read(path)


@given(answer=st.integers(), indents=st.integers(0, 3), name=st.from_regex(r"[a-z]{1,8}_v", fullmatch=True))
def test_no_answer_survives_at_any_indentation(
    answer: int, indents: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pad = "    " * indents
    opening = "".join("    " * depth + "if True:\n" for depth in range(indents))
    cell = f"{pad}### BEGIN SOLUTION\n{pad}{name} = 'answer{answer}'\n{pad}### END SOLUTION\n"
    path = tmp_path_factory.mktemp("any") / "07_lesson.py"
    path.write_text(f"# %%\n{opening}{cell}", encoding="utf-8")
    lesson = read(path)
    assert f"{pad}{name} = 'answer{answer}'" in lesson.solution().cells[0].source
    assert f"answer{answer}" not in dumps(lesson.learner())
