"""An engine that is compiled ahead of time, with TensorRT-LLM's names for its limits and its parts.

engine = build(checkpoint_dir, output_dir, BuildConfig(max_batch_size=8, max_seq_len=1024))
token_ids = Executor(engine).generate([prompt_token_ids], SamplingParams(max_tokens=32))

Read the build in this order: config, model, layers, kernels, compile, build_cache, directory, build. runtime/ runs it.
"""

from __future__ import annotations

import warnings

from engineroom.kit import openmp

openmp.apply()  # before anything imports torch

from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildConfig, BuildError, Limits, deduce
from engineroom.engine.directory import EngineDir, EngineError, open_engine
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import RequestError, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams

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
    "Limits",
    "RequestError",
    "SamplingParams",
    "TokenOutput",
    "build",
    "deduce",
    "open_engine",
    "refit",
]
