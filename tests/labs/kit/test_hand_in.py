"""A report is valid as it was written; whatever is edited, damaged or foreign is told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labs.kit import check, hand_in, progress
from labs.kit.hand_in import DATA, ReportError, read

NAME = "Ada </script> Lovelace & Söhne"


@pytest.fixture
def reports(practice: Path) -> dict[str, str]:
    """The report of a learner who passed one exercise, tried another and met a challenge, in both formats."""
    progress.record_attempt("01.mean", 1, passed=True)  # an older version
    check.check("01.times", [1])
    check.check("02.lenient", ...)
    progress.record_gain("02.challenge", 1.5)
    progress.record_gain("01.challenge", 1.25)
    return {"json": hand_in.report("json", name=NAME), "html": hand_in.report("html", name=NAME)}


def fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each value that is no container, and of each container."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from fields(item, (*path, key))


def changed(value: Any) -> Any:
    """A value of the same kind that differs."""
    if isinstance(value, bool) or value is None:
        return "2026-01-01T00:00:00Z"
    if isinstance(value, int | float):
        return value + 1
    return value + "0" if isinstance(value, str) else [] if value else [1]


def tampered(text: str, path: tuple[str | int, ...], *, remove: bool = False) -> str:
    """The JSON report with one value changed or removed; the hash stays as it was."""
    facts = json.loads(text)
    parent = facts
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = changed(parent[path[-1]])
    return json.dumps(facts)


def test_both_formats_say_the_same_and_are_valid(reports: dict[str, str]) -> None:
    contents = [read(text) for text in reports.values()]
    for report in contents:
        assert report.name == NAME
        counts = [(lesson.lesson, lesson.done, lesson.total) for lesson in report.lessons]
        assert counts == [("01_a", 1, 2), ("02_b", 0, 2), ("03_c", 0, 0)]
        assert list(report.gains.items()) == [("01.challenge", 1.25), ("02.challenge", 1.5)]
    page = reports["html"]
    assert (
        "01_a: 1 of 2" in page
        and "changed since you did it" in page
        and "Ada &lt;/script&gt; Lovelace" in page
    )
    assert "01.challenge: 1.25 times" in page


def test_every_field_that_is_changed_or_removed_makes_a_report_invalid(reports: dict[str, str]) -> None:
    text = reports["json"]
    paths = list(fields(json.loads(text)))
    assert (
        ("name",) in paths and ("lessons", 0, "exercises", 0, "passed_at") in paths and ("sha256",) in paths
    )
    for path in paths:
        for remove in (False, True):
            with pytest.raises(ReportError, match=r"changed|damaged|no progress report"):
                read(tampered(text, path, remove=remove))


def test_a_field_that_is_added_or_written_twice_makes_a_report_invalid(reports: dict[str, str]) -> None:
    text = reports["json"]
    for extra in ('"extra": 1', '"name": "Somebody else"'):
        with pytest.raises(ReportError, match=r"changed|damaged"):
            read(text.replace("{", "{" + extra + ",", 1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_every_edit_of_the_page_makes_it_invalid(data: st.DataObject, reports: dict[str, str]) -> None:
    """Also where only the table is edited and the JSON in the page is as it was."""
    page = reports["html"].strip()
    position = data.draw(st.integers(0, len(page) - 1))
    letter = data.draw(st.sampled_from("0x<é"))
    edits = {
        page[:position] + page[position + 1 :],
        page[:position] + letter + page[position:],
        page[:position],
        page + "<p>All done</p>",
    }
    for edit in edits - {page}:
        with pytest.raises(ReportError):
            read(edit)


def test_the_table_alone_edited(reports: dict[str, str]) -> None:
    table, data, facts = reports["html"].partition(DATA)
    assert "attempts: 1" in table
    with pytest.raises(ReportError, match="was changed after it was written"):
        read(table.replace("attempts: 1", "attempts: 0", 1) + data + facts)


@pytest.mark.parametrize("format", ["html", "json"])
def test_what_mail_and_editors_do_to_a_file_keeps_it_valid(format: str, reports: dict[str, str]) -> None:
    text = reports[format]
    for harmless in (text.replace("\n", "\r\n"), text.strip(), text + "\n\n", "\ufeff" + text):
        assert read(harmless) == read(text)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "no progress report"),
        (b"hello", "no progress report"),
        (b"{}", "no progress report"),
        (b'{"sha256": 3}', "no progress report"),
        (b"[" * 100_000, "no progress report"),
        (b"\x89PNG\xff", "no text file"),
        (b'{"format": "Engine Room progress report 2"', "damaged or incomplete"),
        (b"<h1>Engine Room progress report 2</h1>", "the end of this report is missing"),
    ],
)
def test_foreign_and_damaged_files(contents: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(contents)
    with pytest.raises(ReportError, match=message):
        hand_in.read_file(tmp_path / "file")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "missing", "No such file")):
        with pytest.raises(ReportError, match=f"cannot be read: {reason}"):
            hand_in.read_file(path)


@pytest.mark.usefixtures("practice")
def test_names(reports: dict[str, str]) -> None:
    assert read(hand_in.report("json", name="  ")).name is None
    assert read(hand_in.report("json", name=" 山田 太郎 ")).name == "山田 太郎"
    for wrong in ("two\nlines", "\udcff", "\x1b[31m", "x" * 201):
        with pytest.raises(ReportError, match="one line"):
            hand_in.report(name=wrong)
    with pytest.raises(ValueError, match="'html' or 'json'"):
        hand_in.report("pdf")
