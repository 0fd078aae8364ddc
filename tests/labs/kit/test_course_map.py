"""The map says what is done and where to go on; every lesson ends with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labs.kit import progress
from labs.kit.course_map import as_html, as_text, course_stops, show_map
from tools.author.files import lesson_sources
from tools.author.source import read


@pytest.mark.usefixtures("practice")
def test_the_map_leads_to_the_first_exercise_that_is_not_done(capsys: pytest.CaptureFixture) -> None:
    assert "→ 01 a" in as_text(course_stops(progress.load()))
    progress.record_attempt("01.times", 1, passed=True)
    progress.record_attempt("01.mean", 1, passed=True)  # an older version
    stops = course_stops(progress.load())
    assert [stop.signs for stop in stops] == ["✓ ↻", "○ ○", ""]
    assert as_text(stops).endswith("Next: Write the mean (01.mean), in lesson 01, a")
    progress.record_attempt("01.mean", 2, passed=True)
    progress.record_attempt("02.lenient", 1, passed=False, mistake="x")
    text = as_text(course_stops(progress.load()))
    assert "→ 02 b" in text and text.count("→") == 1 and "◐ ○" in text
    show_map()
    assert capsys.readouterr().out == text + "\n"


@pytest.mark.usefixtures("practice")
def test_all_done() -> None:
    for exercise, version in (("01.times", 1), ("01.mean", 2), ("02.lenient", 1), ("02.broken", 1)):
        progress.record_attempt(exercise, version, passed=True)
    text = as_text(course_stops(progress.load()))
    assert "→" not in text and text.endswith("You have passed every exercise of the course.")


@pytest.mark.usefixtures("practice")
def test_the_page_links_every_lesson_and_leaves_colours_to_the_theme() -> None:
    page = as_html(course_stops(progress.load()))
    assert re.findall(r'href="([^"]+)"', page) == ["01_a.ipynb", "02_b.ipynb", "03_c.ipynb"]
    assert not re.search(r"color|background|#[0-9a-fA-F]{3}", page)


@pytest.mark.parametrize("path", lesson_sources(), ids=lambda path: path.stem)
def test_every_lesson_shows_the_map_after_its_recap(path: Path) -> None:
    cells = read(path).learner().cells
    recap = next(number for number, cell in enumerate(cells) if "## Recap" in cell.source)
    assert "show_map()" in cells[recap + 1].source
