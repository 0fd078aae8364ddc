"""One JupyterLab for all browser tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.browser_lab import Lab, running_lab


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with running_lab() as running:
        yield running
