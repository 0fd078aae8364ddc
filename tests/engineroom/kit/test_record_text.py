"""A record reads as sentences: no long digits, no unit that nobody says, no tag that closes early."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engineroom.kit.record import Record, find, records_folder
from engineroom.kit.record_text import as_html, as_text, value_text
from tests.engineroom.kit.test_record import example


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.8444, "ratio", "0.844"),
        (0.01354, "s", "13.5 ms"),
        (78.54, "s", "78.5 s"),
        (0.0, "s", "0 ms"),
        (9196.4, "tokens/s", "9,200 tokens/s"),
        (2.0101, "× vLLM", "2.01 times vLLM"),
        (47.86, "", "47.9"),
        (1234567.0, "bytes", "1,230,000 bytes"),
        (-0.5, "%", "-0.5 %"),
    ],
)
def test_values(value: float, unit: str, text: str) -> None:
    assert value_text(value, unit) == text


def test_a_spread_has_the_unit_of_its_value() -> None:
    record = example(unit="s", samples=[0.5, 2.0, 0.25])
    assert ": 500 ms, the median of 3 runs (250 to 2,000)." in as_text(record)


def test_series_are_lines_of_text_and_rows_of_a_table() -> None:
    record = example(samples={"<b>a": [1.0], "b": [1.0, 2.0, 6.0]})
    assert "\n  <b>a: 1 ms\n  b: 2 ms, the median of 3 runs (1 to 6)\n  Measured on " in as_text(record)
    page = as_html(record)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells == ["&lt;b&gt;a", "1 ms", "", "1", "b", "2 ms", "1 to 6", "3"]


@pytest.mark.parametrize("path", sorted(records_folder().glob("*/*.json")), ids=lambda path: path.stem)
def test_every_record_of_the_course_reads_well(path: Path) -> None:
    record = find(path.stem, path.parent.name)
    text = as_text(record)
    assert not re.search(r"\d[.,]?\d*e[+-]\d|\bratio\b|None|\b1 runs", text.removeprefix(record.what))
    without_names = re.sub(
        r"https?://\S+|\d{4}-\d\d-\d\d", "", text.split("Measured on")[0].split("Published")[0]
    )
    for name in (record.what, *record.values):
        without_names = without_names.replace(name, "")
    digits = [re.sub(r"\D", "", number).strip("0") for number in re.findall(r"\d[\d.,]*", without_names)]
    assert all(len(number) <= 3 for number in digits), text
    assert as_html(record).count("<tr>") == (0 if len(record.values) == 1 else len(record.values) + 1)
    assert isinstance(record, Record) and text.endswith(".")
