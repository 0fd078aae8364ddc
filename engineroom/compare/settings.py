"""What is compared, on what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engineroom.kit.errors import UserError

Prompts = list[list[int]]


class CompareError(UserError, RuntimeError):
    """An engine that is not there, or that did not do the work."""


@dataclass(frozen=True)
class Job:
    """What an engine has to serve. `model`: a Hugging Face folder, without weights if they may be random; `engine`:
    ours, built of the same sizes; `openvino`: the model in its format. `kv_tokens`: room in the KV cache."""

    model: Path
    engine: Path
    dtype: str
    device: str
    kv_tokens: int
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    threads: int
    openvino: Path | None = None

    @property
    def cores(self) -> list[int]:
        """One for each thread."""
        return sorted(os.sched_getaffinity(0))[: self.threads]

    @property
    def random(self) -> bool:
        return not any(self.model.glob("*.safetensors"))
