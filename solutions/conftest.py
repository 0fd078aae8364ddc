"""A stricter ``pytest --nbval-lax solutions/*.ipynb``.

nbval compares nothing in a cell whose stored count is missing, and it passes when every cell is skipped. So a notebook
that was not run from top to bottom is refused, and a session in which no cell ran fails. Each notebook runs in a fresh
work folder with a fresh progress file, as a learner's does.
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

from tools.author.execute import workspace
from tools.author.gates.executed import comparable, ran_in_order
from tools.author.gates.notebook_file import NotebookFile

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


def _refuse(collector: pytest.Collector, message: str) -> None:
    raise collector.CollectError(message)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each cell time to start a server or build an engine. nbval's own limit is longer: 2000 s."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.timeout(CELL_SECONDS))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if ".ipynb::" in report.nodeid and (report.when == "call" or report.skipped):
        CELLS[report.skipped] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    WORKSPACES.close()
    if CELLS[True] and not CELLS[False] and session.exitstatus == 0:
        print("\nno cell of any notebook ran: that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
