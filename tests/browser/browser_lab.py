"""A JupyterLab as a learner gets it, and a Chromium that opens it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nbformat
from playwright.sync_api import Page, sync_playwright

from engineroom.kit.process import start
from tools.author.execute import environment, workspace
from tools.author.files import ROOT
from tools.author.gates.notebook_file import output_text
from tools.kernel import RUNTIME_DIR, private_runtime

CONTRAST = Path(__file__).with_name("contrast.js").read_text()
SCREENSHOTS = ROOT / "out" / "screenshots"
WAIT = 180  # seconds for JupyterLab and a kernel to start, on a busy machine
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMMAND = [sys.executable, "-m", "tools", "lab", "--no-browser", "--port", "{port}", "--work"]


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address without a slash at the end, token, process, work folder and log."""

    url: str
    token: str
    pid: int
    work: Path
    log: Path

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """GET a path, without a token unless one is given."""
        headers = {"Authorization": f"token {token}"} if token else {}
        return httpx.get(self.url + path, headers=headers, timeout=30)

    def notebook(self, name: str) -> nbformat.NotebookNode:
        """Read the notebook from the disk."""
        return nbformat.read(self.work / name, as_version=4)

    def kernel_state(self, name: str) -> str:
        """Return ``idle``, ``busy``, …; "" while the notebook has no kernel."""
        sessions = self.get("/api/sessions", self.token).raise_for_status().json()
        own = [session for session in sessions if Path(session["path"]).name == name]
        states = [session["kernel"]["execution_state"] for session in own]
        return states[0] if states else ""


@contextmanager
def running_lab() -> Iterator[Lab]:
    """Start the project's own launcher in a fresh work folder, apart from this user's Jupyter settings.

    It runs to the end of the session, so its environment is not that of the tests that follow.
    """
    own_environment = dict(os.environ)
    with workspace() as folders, private_runtime() as runtime:
        jupyter = folders.home / "jupyter"
        env = {
            "ENGINEROOM_PRICE_PER_HOUR": "2.50",  # so that the meter runs, GPU or not
            **runtime,
            "JUPYTER_CONFIG_DIR": str(jupyter / "config"),
            "JUPYTERLAB_SETTINGS_DIR": str(jupyter / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(jupyter / "workspaces"),
        }
        command = [*COMMAND, str(folders.work)]
        with start(command, name="lab", env=env, ready="/api", timeout=WAIT) as server:
            info = json.loads(next(Path(runtime[RUNTIME_DIR]).glob("jpserver-*.json")).read_text())
            base = f"{server.url}{info['base_url']}".rstrip("/")
            with environment(own_environment):
                yield Lab(base, info["token"], server.pid, folders.work, server.log)


def chromium() -> str:
    """Return the path of the system's Chromium or Chrome; ``CHROMIUM`` overrides it. Raises FileNotFoundError."""
    names = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else CHROMIUM
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise FileNotFoundError(
            f"no {' or '.join(names)} found, and the browser test needs one. Install it: "
            "sudo apt-get install chromium (or name one: CHROMIUM=/path/to/chrome)"
        )
    return path


@contextmanager
def browser_page() -> Iterator[Page]:
    """Open a page in a headless Chromium."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser.new_page(viewport={"width": 1400, "height": 1000})
        finally:
            browser.close()


def open_notebook(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook and wait for its kernel."""
    page.goto(f"{lab.url}/lab/tree/{name}?token={lab.token}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=WAIT * 1000)
    _wait_until(lambda: lab.kernel_state(name) in ("idle", "starting"), WAIT, "the notebook got no kernel")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT * 1000)


def run_all(page: Page, lab: Lab, name: str, seconds: float) -> None:
    """Run > Run All Cells; return when each saved code cell has a count and the kernel is idle.

    Raises RuntimeError when a cell fails, TimeoutError after so many seconds.
    """
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def is_done() -> bool:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        cells = [
            cell for cell in lab.notebook(name).cells if cell.cell_type == "code" and cell.source.strip()
        ]
        outputs = [output for cell in cells for output in cell.outputs]
        errors = [output for output in outputs if output.output_type == "error"]
        if errors:  # JupyterLab runs no further cell
            raise RuntimeError(f"a cell of {name} failed:\n{output_text(errors[0])}")
        return all(cell.execution_count for cell in cells) and lab.kernel_state(name) == "idle"

    _wait_until(is_done, seconds, f"{name} did not run to its end")


def _wait_until(condition: Callable[[], bool], seconds: float, message: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:  # clock: a limit for a test that hangs
            raise TimeoutError(f"{message} within {seconds:.0f} s")
        time.sleep(0.5)


def scroll_to(page: Page, selector: str) -> bool:
    """Scroll the notebook until an element that matches is drawn; return False when there is none to its end."""
    area = page.locator(".jp-WindowedPanel-outer:visible").first
    area.evaluate("element => element.scrollTop = 0")
    for _ in range(400):
        page.wait_for_timeout(150)
        if page.locator(f"{selector}:visible").count():
            page.locator(f"{selector}:visible").first.scroll_into_view_if_needed()
            return True
        end = "e => { e.scrollTop += 500; return e.scrollTop + e.clientHeight >= e.scrollHeight - 2 }"
        if area.evaluate(end):
            page.wait_for_timeout(300)
            return page.locator(f"{selector}:visible").count() > 0
    return False


def use_theme(page: Page, name: str) -> None:
    """Choose JupyterLab's theme ``Light`` or ``Dark`` in the menu."""
    choose(page, "Settings", "Theme", f"JupyterLab {name}")
    page.locator(f'body[data-jp-theme-light="{str(name == "Light").lower()}"]').wait_for(
        state="attached", timeout=WAIT * 1000
    )


def choose(page: Page, menu: str, *items: str) -> None:
    """Click through a menu of JupyterLab and its submenus."""
    page.get_by_role("menuitem", name=menu, exact=True).click()
    for submenu in items[:-1]:
        page.locator(f'.lm-Menu-itemLabel:text-is("{submenu}")').hover()
    page.locator(f'.lm-Menu-itemLabel:text-is("{items[-1]}")').click()


def unreadable_texts(page: Page) -> list[list[object]]:
    """Scroll through the notebook; return the texts of its outputs that contrast too little with their background."""
    area = page.locator(".jp-WindowedPanel-outer:visible").first
    area.evaluate("element => element.scrollTop = 0")
    texts: list[list[object]] = []
    is_end = False
    while not is_end:
        page.wait_for_timeout(300)
        texts += [text for text in page.evaluate(CONTRAST) if text not in texts]
        is_end = area.evaluate(
            "e => { const before = e.scrollTop; e.scrollTop += 500; return e.scrollTop === before }"
        )
    return texts
