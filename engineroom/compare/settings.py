"""The settings that all engines of a comparison share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engineroom.engine.directory import EngineDir
from engineroom.kit.errors import UserError

TokenIds = list[list[int]]  # the token ids of several prompts or answers


class CompareError(UserError, RuntimeError):
    """An engine that does not exist, that cannot run the model, or that did not produce the tokens it was asked for."""


@dataclass(frozen=True)
class EngineSettings:
    """What every engine of a comparison loads, and its limits.

    `model_dir` is a Hugging Face folder; without weights in it the engines use random ones. `engine_dir` is our engine
    of the same sizes, `openvino_dir` the model in OpenVINO's format. `kv_cache_tokens` is the size of the KV cache.
    """

    model_dir: Path
    engine_dir: Path
    dtype: str
    device: str
    kv_cache_tokens: int
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    threads: int
    openvino_dir: Path | None = None

    @classmethod
    def of_engine(
        cls,
        engine: EngineDir,
        model_dir: Path,
        *,
        kv_cache_tokens: int,
        threads: int,
        openvino_dir: Path | None = None,
    ) -> Self:
        """Settings in which all engines get the dtype, the device and the limits that `engine` was built for."""
        return cls(
            model_dir=model_dir,
            engine_dir=engine.path,
            dtype=engine.model.dtype,
            device=engine.device,
            kv_cache_tokens=kv_cache_tokens,
            max_batch_size=engine.limits.max_batch_size,
            max_seq_len=engine.limits.max_seq_len,
            max_num_tokens=engine.limits.max_num_tokens,
            threads=threads,
            openvino_dir=openvino_dir,
        )

    @property
    def cores(self) -> list[int]:
        """The CPU cores to bind to, one for each thread."""
        return sorted(os.sched_getaffinity(0))[: self.threads]

    @property
    def has_random_weights(self) -> bool:
        return not any(self.model_dir.glob("*.safetensors"))
