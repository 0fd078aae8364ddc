from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.author.lesson_case import LessonCase


@pytest.fixture
def case(tmp_path: Path) -> LessonCase:
    return LessonCase(tmp_path)
