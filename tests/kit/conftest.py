from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data home of the test's own: no test sees a learner's files."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ENGINEROOM_HOME", str(folder))
    return folder
