"""What a learner meets around the notebook: the tour, the memory in use, and terminals in which commands work."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from engineroom.kit.machine import machine
from tests.browser.browser_lab import SCREENSHOTS, WAIT, Lab, browser_page, choose, open_notebook, use_theme
from tools.author.files import lesson_sources

LESSON = "00_preflight.ipynb"
NEXT = "button[data-action=primary]"
TOOLTIP = ".react-joyride__tooltip"
pytestmark = pytest.mark.timeout(600)
KEEP = re.compile(r"(?s)\*\*Keep:\*\*(.*?)\n\n")
COMMAND = re.compile(r"`(engineroom [a-z -]+)`")


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with browser_page() as page:
        page.set_default_timeout(WAIT * 1000)
        open_notebook(page, lab, LESSON)
        yield page


def kept_commands() -> list[str]:
    """Return the commands that the lessons tell their reader to keep."""
    texts = [
        "\n".join(line.lstrip("# ") for line in path.read_text().splitlines()) for path in lesson_sources()
    ]
    commands = [
        command for text in texts for recap in KEEP.findall(text) for command in COMMAND.findall(recap)
    ]
    return sorted(set(commands))


def take_tour(page: Page, screenshots: str) -> list[str]:
    """Click from step to step; return the steps' titles."""
    titles = []
    while page.locator(NEXT).count():
        titles.append(page.locator(f"{TOOLTIP} h4, {TOOLTIP} h1").first.inner_text())
        page.screenshot(path=SCREENSHOTS / f"tour_{screenshots}_{len(titles)}.png")
        page.locator(NEXT).click()
        page.wait_for_timeout(700)  # the step fades out
    return titles


def test_the_tour_is_offered_at_the_first_start_and_not_after_it_was_taken(page: Page, lab: Lab) -> None:
    page.get_by_role("button", name="Start now").click()
    page.locator(TOOLTIP).wait_for()
    titles = take_tour(page, "light")
    assert len(titles) >= 6 and "Exercises" in titles and "A terminal" in titles
    open_notebook(page, lab, LESSON)
    page.wait_for_timeout(5000)
    assert not page.get_by_role("button", name="Start now").count()


def test_the_help_menu_has_the_tour_and_no_other(page: Page) -> None:
    use_theme(page, "Dark")
    page.get_by_role("menuitem", name="Help", exact=True).click()
    assert page.locator(".lm-Menu-itemLabel").filter(has_text=re.compile(r"\btour\b", re.I)).count() == 1
    page.keyboard.press("Escape")
    choose(page, "Help", "Engine Room tour")
    page.locator(TOOLTIP).wait_for()
    assert len(take_tour(page, "dark")) >= 6
    use_theme(page, "Light")


def test_the_memory_in_use_is_shown_against_that_of_this_machine(page: Page) -> None:
    text = page.locator("#jp-main-statusbar").get_by_text("Mem:").inner_text()
    match = re.fullmatch(r"Mem: ([\d.]+) / ([\d.]+) MB", text)
    assert match, text
    assert 10 < float(match[1]) < float(match[2])
    assert float(match[2]) == pytest.approx(machine().memory_gib * 1024, abs=1)


def test_commands_typed_into_a_terminal_work_in_the_work_folder(page: Page, lab: Lab) -> None:
    commands = kept_commands()
    assert {"engineroom checkpoint convert", "engineroom build", "engineroom triton render"} <= set(commands)
    choose(page, "File", "New", "Terminal")
    page.locator(".jp-Terminal .xterm-screen").wait_for()
    page.locator(".jp-Terminal .xterm-screen").click()
    lines = [
        "command -v engineroom vllm python > found.txt",
        "engineroom progress map > map.txt",
        *(
            f"{command} --help > /dev/null 2>> failed.txt || echo '{command}' >> failed.txt"
            for command in commands
        ),
        "ls models/course/config.json docs/glossary.md > files.txt; echo end > end.txt",
    ]
    for line in lines:
        page.keyboard.type(line + "\n")
    _wait_for(lab.work / "end.txt")
    page.screenshot(path=SCREENSHOTS / "terminal.png")
    programs = {Path(line).name for line in (lab.work / "found.txt").read_text().splitlines()}
    assert programs == {"engineroom", "vllm", "python"}
    assert "Next: " in (lab.work / "map.txt").read_text()
    assert len((lab.work / "files.txt").read_text().splitlines()) == 2
    assert not (lab.work / "failed.txt").read_text()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT
    while not path.exists():
        if time.monotonic() > deadline:  # clock: a limit for a test that hangs
            raise TimeoutError(f"the terminal did not write {path.name} within {WAIT} s")
        time.sleep(0.5)
