"""The program for NVIDIA's profilers says what it lacks on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labs.profile.under_nsys import NoGpu, run_steps


def test_without_a_gpu_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGpu, match="a machine with a GPU"):
        run_steps(tmp_path, 8)
