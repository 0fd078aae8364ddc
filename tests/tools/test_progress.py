"""`engineroom progress`: writing reports, and reading many of them into a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engineroom.kit.errors import UserError
from labs.kit import progress
from labs.kit.hand_in import ReportError, read_file
from tests.engineroom.kit.conftest import data_home
from tools.progress import COLUMNS, app

__all__ = ["data_home"]
pytestmark = pytest.mark.usefixtures("data_home")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def hand_in(path: Path, name: str = "") -> Path:
    result = call("--report", path, *(["--name", name] if name else []))
    assert result.exit_code == 0, result.output
    return path


def test_the_map_is_what_progress_shows() -> None:
    progress.record_attempt("00.card", 1, passed=False, mistake="x")
    assert call().output == call("map").output
    assert "◐" in call().output and "Next: " in call().output


def test_many_reports_become_a_table(tmp_path: Path) -> None:
    progress.record_attempt("00.budget", 1, passed=True)
    ada, eve = hand_in(tmp_path / "ada.html", "Ada"), hand_in(tmp_path / "eve.json", "=HYPERLINK(1)")
    edited = tmp_path / "edited.html"
    edited.write_text(ada.read_text().replace("Ada", "Bob"))
    (tmp_path / "notes.txt").write_text("hello")
    table = tmp_path / "class.csv"
    files = [ada, edited, eve, tmp_path / "notes.txt", tmp_path / "missing.html"]
    result = call("verify", *files, "--csv", table)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert f"{ada}: valid, Ada, 1 of" in lines[0]
    assert "NOT VALID: this report was changed after it was written" in lines[1]
    assert "valid, =HYPERLINK(1)" in lines[2]
    assert "no progress report" in lines[3] and "cannot be read: No such file" in lines[4]
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert {row["file"]: row["valid"] for row in rows} == {
        str(path): "yes" if path in (ada, eve) else "no" for path in files
    }
    [budget] = [row for row in rows if row["name"] == "Ada" and row["exercise"] == "00.budget"]
    assert (budget["lesson"], budget["verdict"], budget["attempts"]) == ("00_preflight", "done", "1")
    assert budget["first_attempt"] <= budget["passed"]
    assert {row["name"] for row in rows if row["file"] == str(eve)} == {"'=HYPERLINK(1)"}
    assert all(row["problem"] and not row["name"] for row in rows if row["valid"] == "no")


def test_valid_reports_alone_end_with_status_0(tmp_path: Path) -> None:
    assert call("verify", hand_in(tmp_path / "a.json"), hand_in(tmp_path / "b.html")).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--report", "me.pdf"], r"\.html or a \.json"),
        (["--name", "Ada"], "name its file"),
        (["--report", "me.html", "--name", "a\nb"], "one line"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert isinstance(result.exception, ReportError)
    with pytest.raises(ReportError, match=message):
        raise result.exception
    assert list(tmp_path.glob("me.*")) == []


def test_a_name_stays_as_it_was_given(tmp_path: Path) -> None:
    assert read_file(hand_in(tmp_path / "me.html", "Zoë <b>")).name == "Zoë <b>"


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    result = call("verify", hand_in(tmp_path / "me.html"), "--csv", tmp_path)
    assert isinstance(result.exception, UserError)
