from __future__ import annotations

from pathlib import Path

import pytest

from tests.engineroom.checkpoint.judge.cases import run_modelopt


@pytest.fixture(scope="session")
def modelopt_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NVIDIA ModelOpt's exports of every case, and with the models that it exported."""
    folder = tmp_path_factory.mktemp("modelopt")
    run_modelopt(folder)
    return folder
