"""Building lessons: which files are written, where a lesson runs, and what counts as out of step."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from tools.author.build import build
from tools.author.files import ROOT, lesson_sources, write_whole

LESSON = """\
# %% [markdown]
# # A lesson

# %%
### BEGIN SOLUTION
answer = 42
### STARTER
# answer = ...  # which number?
### END SOLUTION

# %%
import os

import tools.author

print(answer, os.getcwd(), tools.author.__file__, os.environ["ENGINEROOM_HOME"], os.path.lexists("models"))
print(os.path.basename(os.getcwd()))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "00_first.py").write_text(LESSON, encoding="utf-8")
    (tmp_path / "solutions" / "01_second.py").write_text("# %%\n1 + 1\n", encoding="utf-8")
    return tmp_path


def test_execution_is_apart_from_the_author_and_names_no_folder_of_this_machine(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", "/author/home")
    report = build(["00"], execute=True, root=root)
    assert report.ok and [str(p) for p in report.written] == [
        "notebooks/00_first.ipynb",
        "solutions/00_first.ipynb",
    ]
    notebook = nbformat.read(root / "solutions" / "00_first.ipynb", as_version=4)
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2]
    assert notebook.cells[2].outputs[0].text == (
        "42 . ./tools/author/__init__.py ~/.local/share/engineroom True\nwork\n"
    )
    assert str(ROOT) not in (root / "solutions" / "00_first.ipynb").read_text()
    assert os.environ["ENGINEROOM_HOME"] == "/author/home"
    assert build(["00"], check=True, root=root).ok


def test_a_second_build_writes_nothing(root: Path) -> None:
    assert len(build(root=root).written) == 2
    assert build(root=root).written == []


def test_check_finds_what_is_out_of_step_and_writes_nothing(root: Path) -> None:
    build(["01"], execute=True, root=root)
    assert build(["01"], check=True, root=root).ok
    (root / "solutions" / "01_second.py").write_text("# %%\n1 + 3\n", encoding="utf-8")
    report = build(["01"], check=True, root=root)
    assert not report.ok and len(report.problems) == 2
    assert "notebooks/01_second.ipynb is out of step" in report.problems[0]
    assert "+1 + 3" in report.problems[1] and "--execute" in report.problems[1]
    assert "1 + 3" not in (root / "notebooks" / "01_second.ipynb").read_text()


def test_new_prose_keeps_the_outputs_of_the_same_code(root: Path) -> None:
    build(["00"], execute=True, root=root)
    source = root / "solutions" / "00_first.py"
    source.write_text(LESSON.replace("# # A lesson", "# # A better title"), encoding="utf-8")
    assert len(build(["00"], root=root).written) == 2
    notebook = nbformat.read(root / "solutions" / "00_first.ipynb", as_version=4)
    assert notebook.cells[0].source == "# A better title"
    assert "42 ." in notebook.cells[2].outputs[0].text
    assert build(["00"], check=True, root=root).ok


def test_new_code_needs_a_new_run(root: Path) -> None:
    build(["01"], execute=True, root=root)
    before = (root / "solutions" / "01_second.ipynb").read_bytes()
    (root / "solutions" / "01_second.py").write_text("# %%\n1 + 3\n", encoding="utf-8")
    build(["01"], root=root)
    assert (root / "solutions" / "01_second.ipynb").read_bytes() == before
    assert not build(["01"], check=True, root=root).ok


def test_check_finds_what_is_missing_and_what_has_no_source(root: Path) -> None:
    (root / "notebooks").mkdir()
    (root / "notebooks" / "09_old.ipynb").write_text("{}")
    problems = "\n".join(build(check=True, root=root).problems)
    assert problems.count("it is missing") == 4
    assert "notebooks/09_old.ipynb has no source" in problems


def test_a_learner_notebook_edited_by_hand_is_found(root: Path) -> None:
    build(root=root)
    path = root / "notebooks" / "00_first.ipynb"
    path.write_text(path.read_text().replace("A lesson", "My lesson"))
    assert "My lesson" in "\n".join(build(["00"], check=True, root=root).problems)


def test_a_lesson_that_fails_is_told_and_leaves_the_file_as_it_was(root: Path) -> None:
    build(["01"], execute=True, root=root)
    before = (root / "solutions" / "01_second.ipynb").read_bytes()
    (root / "solutions" / "01_second.py").write_text("# %%\n1 / 0\n", encoding="utf-8")
    report = build(["01"], execute=True, root=root)
    assert "01_second.py did not run to its end" in report.problems[0]
    assert "ZeroDivisionError" in report.problems[0]
    assert (root / "solutions" / "01_second.ipynb").read_bytes() == before


def test_an_unknown_lesson_names_those_there_are(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no lesson 07; there are: 00_first, 01_second"):
        build(["07"], root=root)
    with pytest.raises(FileNotFoundError, match="no lesson"):
        lesson_sources(root=root / "nowhere")


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
