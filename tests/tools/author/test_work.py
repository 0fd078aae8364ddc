"""The work folder: updates are delivered, and a learner's cells and outputs are never lost."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.author import work as syncing
from tools.author.work import STATE, sync

NAME = "00_first.ipynb"


class WorkFolderCase:
    """A folder of lessons and a work folder, with what an author and a learner do to them."""

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

    def sync(self) -> syncing.SyncReport:
        return sync(self.work, self.lessons)

    def sources(self, name: str = NAME) -> list[str]:
        return [cell.source for cell in nbformat.read(self.work / name, as_version=4).cells]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.work.iterdir() if path.suffix == ".ipynb")


@pytest.fixture
def folders(tmp_path: Path) -> WorkFolderCase:
    return WorkFolderCase(tmp_path)


def test_first_delivery_then_nothing_to_do(folders: WorkFolderCase) -> None:
    assert folders.sync().added == [NAME]
    assert str(folders.sync()) == "the lessons are up to date"
    assert (folders.work / "models").is_symlink()


def test_an_unchanged_copy_is_updated(folders: WorkFolderCase) -> None:
    folders.sync()
    folders.release("x = ...  # better")
    assert folders.sync().updated == [NAME]
    assert folders.sources() == ["x = ...  # better"] and folders.files() == [NAME]


def test_a_copy_that_was_only_run_is_updated_and_its_outputs_are_kept(folders: WorkFolderCase) -> None:
    folders.sync()
    folders.edit("x = ...", "", output="seen\n")  # run, and JupyterLab's empty cell at the end
    folders.release("x = ...  # better")
    report = folders.sync()
    assert report.updated == [NAME] and report.backups == {NAME: "00_first.before-update.ipynb"}
    assert "your outputs are in 00_first.before-update.ipynb" in str(report)
    assert "seen" in (folders.work / "00_first.before-update.ipynb").read_text()
    folders.edit("x = ...  # better", output="seen again\n")
    folders.release("x = ...  # best")
    assert folders.sync().backups == {NAME: "00_first.before-update-2.ipynb"}
    assert "seen again" not in (folders.work / "00_first.before-update.ipynb").read_text()


def test_a_changed_copy_stays_and_the_new_version_is_put_beside_it(folders: WorkFolderCase) -> None:
    folders.sync()
    folders.edit("x = 42")
    assert str(folders.sync()) == "the lessons are up to date"
    folders.release("x = ...  # better")
    report = folders.sync()
    assert report.new_versions == {NAME: "00_first.new.ipynb"} and "yours is kept" in str(report)
    assert folders.sources() == ["x = 42"]
    assert folders.sources("00_first.new.ipynb") == ["x = ...  # better"]
    assert str(folders.sync()) == "the lessons are up to date"


def test_work_done_in_the_new_version_is_not_overwritten_either(folders: WorkFolderCase) -> None:
    folders.sync()
    folders.edit("x = 42")
    folders.release("x = ...  # better")
    folders.sync()
    folders.edit("x = 43", name="00_first.new.ipynb")
    folders.release("x = ...  # best")
    assert folders.sync().new_versions == {NAME: "00_first.new-2.ipynb"}
    assert folders.sources("00_first.new.ipynb") == ["x = 43"]


def test_what_was_deleted_comes_back(folders: WorkFolderCase) -> None:
    folders.sync()
    (folders.work / NAME).unlink()
    assert folders.sync().restored == [NAME]
    assert folders.sources() == ["x = ..."]


def test_a_file_that_is_no_notebook_counts_as_the_learners(folders: WorkFolderCase) -> None:
    folders.sync()
    (folders.work / NAME).write_text("{ half a fi")
    folders.release("x = ...  # better")
    assert folders.sync().new_versions == {NAME: "00_first.new.ipynb"}
    assert (folders.work / NAME).read_text() == "{ half a fi"


@pytest.mark.parametrize("broken", ["{ half", "[]"])
def test_a_broken_state_file_is_moved_aside_and_nothing_is_lost(broken: str, folders: WorkFolderCase) -> None:
    folders.sync()
    folders.edit("x = 42")
    (folders.work / STATE).write_text(broken)
    report = folders.sync()
    assert "could not be read" in str(report) and report.new_versions
    assert folders.sources() == ["x = 42"]
    assert [path.read_text() for path in folders.work.glob(f"{STATE}.corrupt-*")] == [broken]
    assert json.loads((folders.work / STATE).read_text())


@pytest.mark.parametrize("writes", range(5))
def test_an_interrupted_update_is_completed_by_the_next(
    writes: int, folders: WorkFolderCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each of the five writes in turn: two backups or copies, new version, two states."""
    folders.release("y = ...", name="01_second.ipynb")
    folders.sync()
    folders.edit("x = ...", output="seen\n")
    folders.edit("y = 42", name="01_second.ipynb")
    folders.release("x = 0")
    folders.release("y = 0", name="01_second.ipynb")
    write_whole = syncing.write_whole
    remaining = iter(range(writes))

    def until_interrupted(path: Path, text: str) -> bool:
        if next(remaining, None) is None:
            raise KeyboardInterrupt
        return write_whole(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(syncing, "write_whole", until_interrupted)
        folders.sync()
    folders.sync()
    assert folders.files() == [
        "00_first.before-update.ipynb",
        NAME,
        "01_second.ipynb",
        "01_second.new.ipynb",
    ]
    assert (folders.sources(), folders.sources("01_second.ipynb")) == (["x = 0"], ["y = 42"])
    assert str(folders.sync()) == "the lessons are up to date"


def test_links_lead_to_what_the_work_folder_shows(folders: WorkFolderCase) -> None:
    text = 'See [the glossary](../docs/glossary.md), <img src="../docs/x.png">, [next](01_b.ipynb), "../a".'
    notebook = new_notebook(cells=[new_markdown_cell(text), new_code_cell("x = '](../y'")])
    nbformat.write(notebook, folders.lessons / NAME)
    folders.sync()
    assert folders.sources() == [text.replace("../docs", "docs"), "x = '](../y'"]
    assert str(folders.sync()) == "the lessons are up to date"
    assert {link.name for link in folders.work.iterdir() if link.is_symlink()} == {
        "docs",
        "models",
        "records",
    }


def test_wrong_folders_are_refused(folders: WorkFolderCase, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", folders.lessons):
        with pytest.raises(ValueError, match="cannot be the work folder"):
            sync(folder, folders.lessons)
    with pytest.raises(FileNotFoundError, match="engineroom lessons"):
        sync(folders.work, tmp_path / "empty")
