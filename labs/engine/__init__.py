"""Lessons 05 and 06: an engine that is built ahead of time, with TensorRT-LLM's names for its limits and its parts.

made = build(checkpoint_dir, output_dir, BuildConfig(max_batch_size=8, max_seq_len=1024))
answers = Executor(made).generate([tokens], SamplingParams(max_tokens=32))
"""

from __future__ import annotations

import os
import warnings

# A thread that waits gives its core away after microseconds, where GNU's OpenMP spins for milliseconds: beside one busy
# neighbour that makes a step several times slower. Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from labs.engine.build import build, refit
from labs.engine.config import BuildConfig, BuildError, deduce
from labs.engine.directory import EngineDir, EngineError, open_engine
from labs.engine.runtime.async_executor import AsyncExecutor
from labs.engine.runtime.executor import Executor, KvCacheConfig, Output
from labs.engine.runtime.sampling import SamplingParams
from labs.engine.runtime.scheduler import RequestError

# torch 2.13 warns about its own code while it exports
warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`", FutureWarning)

__all__ = [
    "AsyncExecutor",
    "BuildConfig",
    "BuildError",
    "EngineDir",
    "EngineError",
    "Executor",
    "KvCacheConfig",
    "Output",
    "RequestError",
    "SamplingParams",
    "build",
    "deduce",
    "open_engine",
    "refit",
]
