from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data home of the test's own, and no price that somebody set."""
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))
    monkeypatch.delenv("ENGINEROOM_PRICE_PER_HOUR", raising=False)
