"""A real vLLM on the course model, started once for all tests that need one; a rule for the names of tests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from engineroom.kit.process import Server
from engineroom.vllm.command import serve

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names of tests that differ between two processes: pytest-xdist needs the same names in each."""
    if changing := [item.nodeid for item in items if ADDRESS.search(item.nodeid)]:
        raise pytest.UsageError(f"Give these tests a name without an address in memory: {changing[:3]}")


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEROOM_HOME", str(tmp_path_factory.mktemp("home")))
        with serve("course", max_num_seqs=4) as server:
            yield server
