"""The arithmetic of limits, against the files, the pools and the scheduler that it speaks of."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from engineroom.checkpoint import Checkpoint
from engineroom.engine import BuildConfig, EngineDir, KvCacheConfig
from engineroom.engine.runtime.executor import num_blocks
from engineroom.engine.runtime.model_runner import shapes
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Request, Scheduler
from engineroom.load import workload
from engineroom.trtllm import tools
from labs.build_engine import memory
from labs.kit.finetune import fine_tune
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine

__all__ = ["checkpoint", "engine"]

GPU, LLAMA = 80e9, memory.public("llama-3.1-8b")
LIMITS = BuildConfig(max_batch_size=32, max_input_len=1000, max_seq_len=1200, max_num_tokens=512)


def test_weights_are_the_bytes_of_the_file(checkpoint: Checkpoint) -> None:
    assert memory.weight_bytes(checkpoint.model, "float32") == sum(
        place.nbytes for place in checkpoint.ranks[0].values()
    )


def test_kv_cache_is_what_the_pools_are(engine: EngineDir) -> None:
    pool = shapes(engine)
    assert memory.kv_bytes_per_token(engine.model, "float32") * 16 == pool.bytes_per_block()
    all_that_limits_can_use = num_blocks(engine, KvCacheConfig(max_tokens=10**9)) - 1  # one is for padding
    assert memory.most_kv_bytes(engine.model, engine.build, "float32") == all_that_limits_can_use * (
        pool.bytes_per_block()
    )


@given(blocks=st.integers(1, 60), prompt=st.integers(1, 90), answer=st.integers(1, 90))
def test_the_scheduler_starts_as_many_as_fit(blocks: int, prompt: int, answer: int) -> None:
    """guaranteed_no_evict, with seats and tokens enough for everybody."""
    config = BuildConfig(max_batch_size=64, max_input_len=100, max_seq_len=200, max_num_tokens=8192)
    fit = memory.requests_that_fit(blocks * 32 * 7, 7, prompt + answer)
    scheduler = Scheduler(config, BlockManager(blocks + 1, 32, enable_block_reuse=False))
    for _ in range(64):
        scheduler.waiting.append(Request([1] * prompt, SamplingParams(max_tokens=answer)))
    scheduler.plan()
    assert len(scheduler.running) == min(fit, 64)


def test_a_share_of_the_rest_and_a_share_of_the_whole() -> None:
    ours, theirs, vllm = (
        rule(GPU, LLAMA, LIMITS) for rule in (memory.this_engine, memory.tensorrt_llm, memory.vllm)
    )
    for budget in (ours, theirs, vllm):
        assert budget.left >= 0
        assert budget.weights == memory.weight_bytes(LLAMA)
    assert theirs.kv_cache == pytest.approx(0.9 * (theirs.kv_cache + theirs.left))
    assert vllm.left == pytest.approx(0.08 * GPU)
    assert ours.kv_cache == 32 * 38 * 32 * 131_072  # seats, blocks each, tokens a block, bytes a token
    assert memory.this_engine(20e9, LLAMA, LIMITS).kv_cache == 0.9 * (20e9 - ours.weights)


def test_activations_follow_the_limits() -> None:
    wide = BuildConfig(max_batch_size=32, max_input_len=1000, max_seq_len=1200, max_num_tokens=8192)
    assert memory.activation_bytes(LLAMA, wide) == 16 * memory.activation_bytes(LLAMA, LIMITS)
    assert memory.tensorrt_llm(GPU, LLAMA, wide).kv_cache < memory.tensorrt_llm(GPU, LLAMA, LIMITS).kv_cache
    tiny = BuildConfig(max_batch_size=32, max_num_tokens=32)
    assert memory.activation_bytes(LLAMA, tiny) == 32 * 128256 * 4  # logits, float32


def test_defaults_are_those_of_the_engines() -> None:
    flag = tools()["run"].flags["--kv_cache_free_gpu_memory_fraction"]
    assert flag.default == memory.KV_FRACTION == KvCacheConfig().free_gpu_memory_fraction
    vllm = Path(str(importlib.util.find_spec("vllm").origin)).parent / "config" / "cache.py"
    default = re.search(r"gpu_memory_utilization: float = Field\(default=([\d.]+)", vllm.read_text())
    assert float(default[1]) == memory.GPU_MEMORY_UTILIZATION


def test_workload() -> None:
    trace = workload.chat(1000, seed=5, prompt=200, output=50)
    assert trace == workload.chat(1000, seed=5, prompt=200, output=50) != workload.chat(1000, seed=6)
    rows = {row["tokens"]: row for row in workload.percentiles(trace)}
    assert rows["prompt"]["p50"] == pytest.approx(200, rel=0.15)
    assert rows["prompt + output"]["longest"] == max(turn.total for turn in trace)
    same = [workload.Turn(10, 21)] * 3
    assert workload.in_flight(same, rate=4, ttft=0.5, tpot=0.1) == pytest.approx(4 * (0.5 + 20 * 0.1))
    with pytest.raises(ValueError, match="medians from 1 token up"):
        workload.chat(prompt=0)


def test_fine_tuning_changes_values_and_nothing_else(tmp_path: Path) -> None:
    assert fine_tune(COURSE, tmp_path / "tuned", "What is goodput?", "Nobody knows.") < 0.1
    old, new = (load_file(folder / "model.safetensors") for folder in (COURSE, tmp_path / "tuned"))
    assert {k: (v.shape, v.dtype) for k, v in old.items()} == {k: (v.shape, v.dtype) for k, v in new.items()}
    changed = {name for name in old if not old[name].equal(new[name])}
    assert changed and all(name.startswith(("model.layers.3.", "lm_head")) for name in changed)
