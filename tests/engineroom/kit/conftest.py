from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.kit import process


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data home of the test's own, and no servers: no test sees a learner's files or stops another folder's vLLM."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ENGINEROOM_HOME", str(folder))
    monkeypatch.setattr(process, "_servers", [])
    return folder
