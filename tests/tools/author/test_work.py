"""The work folder: updates come in, a learner's cells and outputs are never lost."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.author import work as syncing
from tools.author.work import STATE, sync

NAME = "00_first.ipynb"


class Place:
    """A folder of lessons and a work folder."""

    def __init__(self, folder: Path) -> None:
        self.lessons, self.work = folder / "notebooks", folder / "work"
        self.lessons.mkdir()
        self.release("x = ...")

    def release(self, *sources: str, name: str = NAME) -> None:
        nbformat.write(new_notebook(cells=[new_code_cell(text) for text in sources]), self.lessons / name)

    def edit(self, *sources: str, name: str = NAME, output: str = "") -> None:
        cells = [new_code_cell(text) for text in sources]
        if output:
            cells[0].outputs = [new_output("stream", name="stdout", text=output)]
            cells[0].execution_count = 3
        notebook = new_notebook(cells=cells, metadata={"widgets": {"state": {"a": 1}}})
        nbformat.write(notebook, self.work / name)

    def sync(self) -> syncing.Report:
        return sync(self.work, self.lessons)

    def sources(self, name: str = NAME) -> list[str]:
        return [cell.source for cell in nbformat.read(self.work / name, as_version=4).cells]

    def files(self) -> list[str]:
        return sorted(p.name for p in self.work.iterdir() if p.suffix == ".ipynb")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_first_delivery_then_nothing_to_do(place: Place) -> None:
    assert place.sync().added == [NAME]
    assert str(place.sync()) == "the lessons are up to date"
    assert (place.work / "models").is_symlink()


def test_an_unchanged_copy_is_updated(place: Place) -> None:
    place.sync()
    place.release("x = ...  # better")
    assert place.sync().updated == [NAME]
    assert place.sources() == ["x = ...  # better"] and place.files() == [NAME]


def test_a_copy_that_was_only_run_is_updated_and_its_outputs_are_kept(place: Place) -> None:
    place.sync()
    place.edit("x = ...", "", output="seen\n")  # run, and JupyterLab's empty cell at the end
    place.release("x = ...  # better")
    report = place.sync()
    assert report.updated == [NAME] and report.backups == {NAME: "00_first.before-update.ipynb"}
    assert "your outputs are in 00_first.before-update.ipynb" in str(report)
    assert "seen" in (place.work / "00_first.before-update.ipynb").read_text()
    place.edit("x = ...  # better", output="seen again\n")
    place.release("x = ...  # best")
    assert place.sync().backups == {NAME: "00_first.before-update-2.ipynb"}
    assert "seen again" not in (place.work / "00_first.before-update.ipynb").read_text()


def test_a_changed_copy_stays_and_the_new_version_is_put_beside_it(place: Place) -> None:
    place.sync()
    place.edit("x = 42")
    assert str(place.sync()) == "the lessons are up to date"
    place.release("x = ...  # better")
    report = place.sync()
    assert report.kept == {NAME: "00_first.new.ipynb"} and "yours is kept" in str(report)
    assert place.sources() == ["x = 42"]
    assert place.sources("00_first.new.ipynb") == ["x = ...  # better"]
    assert str(place.sync()) == "the lessons are up to date"


def test_work_done_in_the_new_version_is_not_overwritten_either(place: Place) -> None:
    place.sync()
    place.edit("x = 42")
    place.release("x = ...  # better")
    place.sync()
    place.edit("x = 43", name="00_first.new.ipynb")
    place.release("x = ...  # best")
    assert place.sync().kept == {NAME: "00_first.new-2.ipynb"}
    assert place.sources("00_first.new.ipynb") == ["x = 43"]


def test_what_was_deleted_comes_back(place: Place) -> None:
    place.sync()
    (place.work / NAME).unlink()
    assert place.sync().restored == [NAME]
    assert place.sources() == ["x = ..."]


def test_a_file_that_is_no_notebook_counts_as_the_learners(place: Place) -> None:
    place.sync()
    (place.work / NAME).write_text("{ half a fi")
    place.release("x = ...  # better")
    assert place.sync().kept == {NAME: "00_first.new.ipynb"}
    assert (place.work / NAME).read_text() == "{ half a fi"


@pytest.mark.parametrize("broken", ["{ half", "[]"])
def test_a_broken_state_file_is_moved_aside_and_nothing_is_lost(broken: str, place: Place) -> None:
    place.sync()
    place.edit("x = 42")
    (place.work / STATE).write_text(broken)
    report = place.sync()
    assert "could not be read" in str(report) and report.kept
    assert place.sources() == ["x = 42"]
    assert [p.read_text() for p in place.work.glob(f"{STATE}.corrupt-*")] == [broken]
    assert json.loads((place.work / STATE).read_text())


@pytest.mark.parametrize("writes", range(5))
def test_an_interrupted_update_is_completed_by_the_next(
    writes: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of the five writes in turn: two backups or copies, new version, two states."""
    place.release("y = ...", name="01_second.ipynb")
    place.sync()
    place.edit("x = ...", output="seen\n")
    place.edit("y = 42", name="01_second.ipynb")
    place.release("x = 0")
    place.release("y = 0", name="01_second.ipynb")
    real, left = syncing.write_whole, iter(range(writes))

    def until_interrupted(path: Path, text: str) -> bool:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(syncing, "write_whole", until_interrupted)
        place.sync()
    place.sync()
    assert place.files() == [
        "00_first.before-update.ipynb",
        NAME,
        "01_second.ipynb",
        "01_second.new.ipynb",
    ]
    assert (place.sources(), place.sources("01_second.ipynb")) == (["x = 0"], ["y = 42"])
    assert str(place.sync()) == "the lessons are up to date"


def test_links_lead_to_what_the_work_folder_shows(place: Place) -> None:
    text = 'See [the glossary](../docs/glossary.md), <img src="../docs/x.png">, [next](01_b.ipynb), "../a".'
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("x = '](../y'")])
    nbformat.write(notebook, place.lessons / NAME)
    place.sync()
    assert place.sources() == [text.replace("../docs", "docs"), "x = '](../y'"]
    assert str(place.sync()) == "the lessons are up to date"
    assert {link.name for link in place.work.iterdir() if link.is_symlink()} == {"docs", "models", "records"}


def test_wrong_folders_are_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", place.lessons):
        with pytest.raises(ValueError, match="cannot be the work folder"):
            sync(folder, place.lessons)
    with pytest.raises(FileNotFoundError, match="engineroom build"):
        sync(place.work, tmp_path / "empty")
