from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.checkpoint import Checkpoint, convert, open_checkpoint
from engineroom.engine.build import build
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir

COURSE = Path(__file__).parents[3] / "models" / "course"
LIMITS = BuildConfig(
    max_batch_size=6, max_input_len=192, max_seq_len=256, max_num_tokens=48, tokens_per_block=16
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The course model in float32."""
    return open_checkpoint(convert(COURSE, tmp_path_factory.mktemp("engine") / "checkpoint", dtype="float32"))


@pytest.fixture(scope="session")
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> EngineDir:
    """The course model's engine, compiled for this machine's processor once for all tests."""
    folder = tmp_path_factory.mktemp("engine") / "engine"
    return build(checkpoint.directory, folder, LIMITS, tokenizer_dir=COURSE)
