"""The learner's own path: the lab in a real browser, lesson 00 with its answers, and access by token alone."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psutil
import pytest
from playwright.sync_api import Page

from tests.browser.browser_lab import (
    SCREENSHOTS,
    Lab,
    browser_page,
    chromium,
    open_notebook,
    run_all,
    scroll_to,
    unreadable_texts,
    use_theme,
)
from tools.author.files import ROOT, write_whole
from tools.author.gates.exercises import check_calls
from tools.author.gates.notebook_file import output_text
from tools.author.source import dumps, read

SOURCE = ROOT / "solutions" / "00_preflight.py"
LESSON = "00_preflight.ipynb"
METER = '.jupyter-widgets:has-text("$2.50 an hour")'
LOOPBACK = {"127.0.0.1", "::1"}
SECONDS = 400
PICTURE = "img.engineroom-picture"
ERROR = '[data-mime-type="application/vnd.jupyter.stderr"]:has-text("Traceback (most recent call last)")'


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    """Run lesson 00, its exercises solved, from top to bottom; save a screenshot in any case."""
    assert (lab.work / LESSON).is_file(), "the launcher did not deliver lesson 00"
    write_whole(lab.work / LESSON, dumps(read(SOURCE).solution()))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with browser_page() as page:
        try:
            open_notebook(page, lab, LESSON)
            run_all(page, lab, LESSON, SECONDS)
        finally:
            page.screenshot(path=SCREENSHOTS / "00_preflight_end.png")
        yield page


def test_every_cell_ran_without_an_error(page: Page, lab: Lab) -> None:
    cells = [cell for cell in lab.notebook(LESSON).cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in cells for output in cell.outputs]
    errors = [output_text(output) for output in outputs if output.output_type == "error"]
    assert not errors, "\n".join(errors)
    assert sorted(cell.execution_count for cell in cells) == list(range(1, len(cells) + 1))
    expected = [name for cell in cells for name in check_calls(cell.source)]
    passed = [text.split()[1] for text in map(output_text, outputs) if text.startswith("PASSED ")]
    assert expected and passed == expected


def test_the_meter_widget_is_drawn_and_shows_dollars(page: Page) -> None:
    assert scroll_to(page, METER), "no widget with the price in lesson 00"
    page.screenshot(path=SCREENSHOTS / "00_preflight_widget.png")
    box = page.locator(f"{METER}:visible").first.bounding_box()
    assert box and box["width"] > 10 and box["height"] > 10, box


def test_nothing_in_the_page_is_shown_as_an_error(page: Page) -> None:
    assert not scroll_to(page, ERROR)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_output_can_be_read_in_both_themes(theme: str, page: Page) -> None:
    use_theme(page, theme)
    assert scroll_to(page, PICTURE)
    page.screenshot(path=SCREENSHOTS / f"00_preflight_{theme.lower()}.png")
    filters = page.locator(f"{PICTURE}:visible").first.evaluate("image => getComputedStyle(image).filter")
    assert ("invert" in filters) == (theme == "Dark")
    assert unreadable_texts(page) == []


def test_without_the_token_nobody_comes_in(lab: Lab) -> None:
    assert lab.get("/api/contents").status_code == httpx.codes.FORBIDDEN
    assert lab.get("/api/contents", token="guess").status_code == httpx.codes.FORBIDDEN
    assert lab.get("/lab").is_redirect and "/login" in lab.get("/lab").headers["location"]
    assert lab.get("/api/contents", lab.token).status_code == httpx.codes.OK
    assert len(lab.token) >= 32


def test_lab_and_kernels_listen_on_this_machine_only(page: Page, lab: Lab) -> None:
    server = psutil.Process(lab.pid)
    family = [server, *server.children(recursive=True)]
    connections = [connection for process in family for connection in process.net_connections("inet")]
    listening = [connection for connection in connections if connection.status == psutil.CONN_LISTEN]
    assert len(family) > 1 and len(listening) > 1
    assert {connection.laddr.ip for connection in listening} <= LOOPBACK


def test_a_missing_browser_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(FileNotFoundError, match="apt-get install chromium"):
        chromium()


def test_the_address_that_is_printed_opens_the_first_lesson(lab: Lab) -> None:
    address = f"{lab.url}/lab/tree/{LESSON}?token={lab.token}"
    assert address in lab.log.read_text()


def test_the_glossary_opens_from_the_work_folder(lab: Lab) -> None:
    assert lab.get("/api/contents/docs/glossary.md?content=0", lab.token).status_code == httpx.codes.OK
