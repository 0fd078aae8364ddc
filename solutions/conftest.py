"""``pytest --nbval-lax solutions/*.ipynb``, made strict.

nbval compares nothing in a cell whose stored count is missing and is content when every cell is skipped. So a
notebook that was not run from top to bottom is refused, and a session in which no cell ran fails. Each
notebook runs in a fresh work folder with a fresh progress file, like a learner's.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

from labs.author.execute import place
from labs.author.gates.book import Book
from labs.author.gates.executed import comparable, ran_in_order

PLACES = ExitStack()
RAN: set[str] = set()


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    result = yield
    if isinstance(item, IPyNbCell):
        RAN.add(item.nodeid)
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    PLACES.close()
    cells = [item for item in session.items if isinstance(item, IPyNbCell)]
    if cells and not RAN and session.exitstatus == 0:
        print("\nno cell of any notebook ran: that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
