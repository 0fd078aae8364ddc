"""``pytest --nbval-lax solutions/*.ipynb``, made strict.

nbval compares nothing in a cell whose stored count is missing and is content when every cell is skipped. So a
notebook that was not run from top to bottom is refused, and a session in which no cell ran fails. Each
notebook runs in a fresh work folder with a fresh progress file, like a learner's.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

from tools.author.execute import place
from tools.author.gates.book import Book
from tools.author.gates.executed import comparable, ran_in_order

CELL_SECONDS = 600  # on a busy machine
PLACES = ExitStack()
CALLED: Counter[bool] = Counter()  # cells by whether they were skipped


def _in_fresh_place(name: str, cwd: str, **options: Any) -> RunningKernel:
    PLACES.close()
    return RunningKernel(name, cwd=str(PLACES.enter_context(place()).work), **options)


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, IPyNbFile):
        nbval.plugin.RunningKernel = _in_fresh_place
        book = Book.read(collector.path, collector.config.rootpath)
        problems = ran_in_order(book) + comparable(book)
        if problems:
            collector.collect = partial(_refuse, collector, "\n".join(map(str, problems)))


def _refuse(collector: pytest.Collector, why: str) -> None:
    raise collector.CollectError(why)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A cell may start a server or build an engine. nbval's own limit, 2000 s, is later."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if ".ipynb::" in report.nodeid and (report.when == "call" or report.skipped):
        CALLED[report.skipped] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    PLACES.close()
    if CALLED[True] and not CALLED[False] and session.exitstatus == 0:
        print("\nno cell of any notebook ran: that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
