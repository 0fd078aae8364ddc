from __future__ import annotations

from pathlib import Path

import pytest

from tests.engineroom.checkpoint.judge.cases import run_judge


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NVIDIA ModelOpt's exports of every case, and the models they were made from."""
    folder = tmp_path_factory.mktemp("judged")
    run_judge(folder)
    return folder
