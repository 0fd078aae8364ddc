"""Execute a notebook as a learner would: in a fresh work folder, with a progress file of its own."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from engineroom.kit import openmp
from engineroom.kit.environment import child_environment
from labs.kit.cell_errors import VARIABLE as TRACEBACKS
from tools.author.files import ROOT
from tools.author.work import prepare
from tools.kernel import IpcKernelManager, private_runtime

CELL_TIMEOUT = 1800  # seconds
START_TIMEOUT = 300  # seconds until a kernel responds, on a machine that is busy


@dataclass(frozen=True)
class Workspace:
    """A temporary work folder and a temporary data home."""

    work: Path
    home: Path

    def scrub(self, notebook: NotebookNode) -> NotebookNode:
        """Return a copy without paths of this machine: the repository and the work folder become ``.``."""
        text = json.dumps(notebook, ensure_ascii=False)
        names = {str(self.work): ".", str(self.home): "~/.local/share/engineroom", str(ROOT): "."}
        for folder in sorted(names, key=len, reverse=True):
            text = re.sub(re.escape(folder) + r"(?![\w-])", names[folder], text)
        return nbformat.reads(text, as_version=4)


@contextmanager
def workspace() -> Iterator[Workspace]:
    """Yield a fresh Workspace; until the block ends, this process and its children use its data home.

    Their environment is built as that of a server. The kernel's sockets are in a private folder.
    """
    temporary = tempfile.TemporaryDirectory(prefix="engineroom-", ignore_cleanup_errors=True)
    with temporary as folder, private_runtime() as runtime:
        folders = Workspace(Path(folder, "work"), Path(folder, "home"))
        folders.home.mkdir()
        openmp.apply()  # kernels may import torch before our engine
        prepare(folders.work)
        own = {"ENGINEROOM_HOME": str(folders.home), "PYTHONPATH": str(ROOT), TRACEBACKS: "full", **runtime}
        with environment(child_environment(own)):
            yield folders


def execute(notebook: NotebookNode, folders: Workspace, timeout: int = CELL_TIMEOUT) -> NotebookNode:
    """Run all cells and return the notebook with outputs and counts; ``timeout`` is in seconds for each cell.

    Raises nbclient's CellExecutionError, CellTimeoutError or DeadKernelError; the kernel ends in each case.
    """
    client = NotebookClient(
        notebook,
        timeout=timeout,
        startup_timeout=START_TIMEOUT,
        kernel_name="python3",
        kernel_manager_class=IpcKernelManager,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folders.work)}},
    )
    client.execute()
    return folders.scrub(notebook)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let the environment consist of these variables only, until the block ends."""
    before = dict(os.environ)
    _replace_environment(values)
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(values: Mapping[str, str]) -> None:
    for name in os.environ.keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)
