"""A stricter ``pytest --nbval-lax solutions/*.ipynb``, in which every cell runs twice in a row.

nbval compares nothing in a cell whose stored count is missing, and it passes when every cell is skipped. So a notebook
that was not run from top to bottom is refused, and a session in which no cell ran fails. Each notebook runs in a fresh
work folder with a fresh progress file, as a learner's does. A learner also runs a cell again: each cell is followed by
a second run of itself, which must not fail either, and each check must pass both times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

from tools.author.execute import workspace
from tools.author.gates.executed import comparable, ran_in_order
from tools.author.gates.exercises import check_calls
from tools.author.gates.notebook_file import NotebookFile, output_text

CELL_SECONDS = 600  # on a busy machine
WORKSPACES = ExitStack()
CELLS: Counter[bool] = Counter()  # cells that ran (False) and that were skipped (True)


def _kernel_in_fresh_workspace(name: str, cwd: str, **options: Any) -> RunningKernel:
    WORKSPACES.close()
    return RunningKernel(name, cwd=str(WORKSPACES.enter_context(workspace()).work), **options)


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, IPyNbFile):
        nbval.plugin.RunningKernel = _kernel_in_fresh_workspace
        file = NotebookFile.read(collector.path, collector.config.rootpath)
        violations = ran_in_order(file) + comparable(file)
        if violations:
            collector.collect = partial(_refuse, collector, "\n".join(map(str, violations)))
        else:
            collector.collect = partial(_each_cell_twice, collector)


def _each_cell_twice(file: IPyNbFile) -> Iterator[IPyNbCell]:
    for cell in IPyNbFile.collect(file):
        yield cell
        yield IPyNbCell.from_parent(
            file, name=f"{cell.name}, second run", cell_num=cell.cell_num, cell=cell.cell, options=cell.options
        )


def _refuse(collector: pytest.Collector, message: str) -> None:
    raise collector.CollectError(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each cell time to start a server or build an engine. nbval's own limit is longer: 2000 s."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a cell whose check did not pass: to nbval, a hint is an output like any other."""
    yield
    if isinstance(item, IPyNbCell):
        printed = "\n".join(map(output_text, item.test_outputs))
        for name in check_calls(item.cell.source):
            if f"PASSED {name}" not in printed:
                pytest.fail(f"the check of {name} did not pass:\n{printed}", pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if ".ipynb::" in report.nodeid and (report.when == "call" or report.skipped):
        CELLS[report.skipped] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    WORKSPACES.close()
    if CELLS[True] and not CELLS[False] and session.exitstatus == 0:
        print("\nno cell of any notebook ran: that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
