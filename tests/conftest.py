"""A real vLLM on the course model, started once for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engineroom.kit.process import Server
from engineroom.vllm.command import serve


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINEROOM_HOME", str(tmp_path_factory.mktemp("home")))
        with serve("course", max_num_seqs=4) as server:
            yield server
