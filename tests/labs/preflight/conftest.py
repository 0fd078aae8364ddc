from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own data home and no price of this machine."""
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))
    monkeypatch.delenv("ENGINEROOM_PRICE_PER_HOUR", raising=False)
