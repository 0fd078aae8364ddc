"""Two workers share the tests. A folder of tests, or a notebook, stays on one worker with its servers and its kernel.

The folders that use the same vLLM stay together, because it takes 40 seconds to start.
"""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from engineroom.kit import openmp, tmpdir

openmp.apply()  # before a test imports torch; notebook kernels and servers inherit it

LARGEST = ("tests/engineroom/triton/", "tests/tools/author/")
ONE_VLLM = {
    *(f"tests/engineroom/{folder}" for folder in ("compare", "load", "metrics", "quality", "triton", "vllm")),
    *(f"tests/labs/{folder}" for folder in ("build_engine", "deploy_with_triton")),
}


class ByFolder(LoadScopeScheduling):
    """Assigns whole folders to workers."""

    def _split_scope(self, nodeid: str) -> str:
        folder = "/".join(nodeid.partition("::")[0].split("/")[:-1][:3])
        return "one vLLM" if folder in ONE_VLLM else folder


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFolder:
    return ByFolder(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Share compiled engines within a run, but not with earlier runs.

    Hypothesis gets no deadline for an example, because one would fail on a busy machine.
    """
    settings.register_profile("course", deadline=None)
    settings.load_profile("course")
    if not hasattr(config, "workerinput"):
        os.environ.setdefault(
            "PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()
        )  # failed tests' folders are kept
        tmpdir.own_folder()
        os.environ.setdefault("ENGINEROOM_BUILDS", tempfile.mkdtemp(prefix="builds-"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest folders first, so that no worker runs one of them alone at the end."""
    items.sort(key=lambda item: (not item.nodeid.startswith(LARGEST), ".ipynb::" not in item.nodeid))
