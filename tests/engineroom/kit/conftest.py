from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.kit import process


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own data home and an empty list of servers.

    No test sees a learner's files or stops the vLLM of another folder.
    """
    folder = tmp_path / "home"
    monkeypatch.setenv("ENGINEROOM_HOME", str(folder))
    monkeypatch.setattr(process, "_servers", [])
    return folder
