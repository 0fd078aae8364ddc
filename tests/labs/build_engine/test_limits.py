"""The arithmetic of limits agrees with the files, the KV cache and the scheduler that it describes."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.checkpoint import Checkpoint
from engineroom.engine import EngineDir, KvCacheConfig
from engineroom.engine.config import Limits
from engineroom.engine.model import KvCacheShape
from engineroom.engine.runtime.executor import num_kv_cache_blocks
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Scheduler
from engineroom.trtllm import tools
from labs.kit import memory
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]

GPU_BYTES = 80e9
LLAMA = memory.public_model("llama-3.1-8b")
LIMITS = Limits(max_batch_size=32, max_input_len=1000, max_seq_len=1200, max_num_tokens=512)


def test_weights_are_the_bytes_of_the_file(checkpoint: Checkpoint) -> None:
    assert memory.weight_bytes(checkpoint.model, "float32") == checkpoint.nbytes


def test_kv_cache_is_what_the_engine_allocates(engine: EngineDir) -> None:
    bytes_per_block = KvCacheShape.of(engine.model, engine.limits, engine.device).bytes_per_block()
    assert memory.kv_bytes_per_token(engine.model, "float32") * 16 == bytes_per_block
    max_blocks = num_kv_cache_blocks(engine, KvCacheConfig(max_tokens=10**9))
    max_bytes = memory.max_kv_cache_bytes(engine.model, engine.limits, "float32")
    assert max_bytes == max_blocks * bytes_per_block


@given(num_blocks=st.integers(1, 60), prompt_len=st.integers(1, 90), max_tokens=st.integers(1, 90))
def test_the_scheduler_starts_as_many_as_fit(num_blocks: int, prompt_len: int, max_tokens: int) -> None:
    """Under guaranteed_no_evict, with slots and tokens of a step for all requests."""
    limits = Limits(max_batch_size=64, max_input_len=100, max_seq_len=200, max_num_tokens=8192)
    bytes_per_token = 7
    kv_cache = num_blocks * 32 * bytes_per_token
    fitting = memory.max_concurrent_requests(kv_cache, bytes_per_token, prompt_len + max_tokens)
    scheduler = Scheduler(limits, BlockManager(num_blocks, 32, enable_block_reuse=False))
    for _ in range(64):
        scheduler.waiting.append(Request([1] * prompt_len, SamplingParams(max_tokens=max_tokens)))
    scheduler.schedule()
    assert len(scheduler.running) == min(fitting, 64)


def test_a_share_of_the_rest_and_a_share_of_the_whole() -> None:
    this_engine = memory.this_engine_budget(GPU_BYTES, LLAMA, LIMITS)
    tensorrt_llm = memory.tensorrt_llm_budget(GPU_BYTES, LLAMA, LIMITS)
    vllm = memory.vllm_budget(GPU_BYTES, LLAMA, LIMITS)
    for budget in (this_engine, tensorrt_llm, vllm):
        assert budget.unused >= 0
        assert budget.weights == memory.weight_bytes(LLAMA)
    free = tensorrt_llm.kv_cache + tensorrt_llm.unused
    assert tensorrt_llm.kv_cache == pytest.approx(0.9 * free)
    assert vllm.unused == pytest.approx(0.08 * GPU_BYTES)
    # requests, blocks of each, tokens of a block, bytes of a token
    assert this_engine.kv_cache == 32 * 38 * 32 * 131_072
    small_gpu = memory.this_engine_budget(20e9, LLAMA, LIMITS)
    assert small_gpu.kv_cache == 0.9 * (20e9 - this_engine.weights)


def test_activations_follow_the_limits() -> None:
    wide = replace(LIMITS, max_num_tokens=8192)
    assert memory.activation_bytes(LLAMA, wide) == 16 * memory.activation_bytes(LLAMA, LIMITS)
    wide_budget = memory.tensorrt_llm_budget(GPU_BYTES, LLAMA, wide)
    assert wide_budget.kv_cache < memory.tensorrt_llm_budget(GPU_BYTES, LLAMA, LIMITS).kv_cache
    narrow = replace(LIMITS, max_num_tokens=32)
    assert memory.activation_bytes(LLAMA, narrow) == 32 * 128256 * 4  # logits, float32


def test_defaults_are_those_of_the_engines() -> None:
    flag = tools()["run"].flags["--kv_cache_free_gpu_memory_fraction"]
    assert flag.default == memory.FREE_MEMORY_FRACTION == KvCacheConfig().free_gpu_memory_fraction
    vllm = importlib.util.find_spec("vllm")
    assert vllm and vllm.origin
    source = (Path(vllm.origin).parent / "config" / "cache.py").read_text()
    default = re.search(r"gpu_memory_utilization: float = Field\(default=([\d.]+)", source)
    assert default
    assert float(default[1]) == memory.GPU_MEMORY_UTILIZATION
