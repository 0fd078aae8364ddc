"""An engine that is built ahead of time, with TensorRT-LLM's names for its limits and its parts.

made = build(checkpoint_dir, output_dir, BuildConfig(max_batch_size=8, max_seq_len=1024))
answers = Executor(made).generate([tokens], SamplingParams(max_tokens=32))
"""

from __future__ import annotations

import os
import warnings

# Read when torch is first imported. GNU's OpenMP lets a waiting thread spin for milliseconds, which beside one busy
# neighbour makes a step several times slower; and hardly at all once a process has more such threads than cores, as a
# server has, whose main thread loads the engine and whose other thread runs it: a step then waits for the system to
# wake a thread at every product. So: a thousand turns, some microseconds, in both cases (libgomp's env.c).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OMP_WAIT_POLICY", "active")

from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildConfig, BuildError, deduce
from engineroom.engine.directory import EngineDir, EngineError, open_engine
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig, Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError

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
