"""The tensors of `return_perf_metrics`: when a request arrived, started and got tokens, and its blocks of the KV cache.

Names, types and meaning follow convert_response in inflight_batcher_llm/tensorrt_llm/1/model.py and _create_response in
llmapi/tensorrt_llm/1/model.py of TensorRT-LLM. Times are in nanoseconds of the machine's monotonic clock, as there.
Without draft tokens, the figures of speculative decoding are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it imports PyTorch, which the BLS program does without
    from engineroom.engine.runtime.request import TokenOutput

FLOATS = {"acceptance_rate", "kv_cache_hit_rate"}
PERF_METRICS = (
    "kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks", "arrival_time_ns",
    "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns", "acceptance_rate",
    "total_accepted_draft_tokens", "total_draft_tokens",
)  # fmt: skip
LLMAPI_PERF_METRICS = (
    "kv_cache_reused_block", "kv_cache_hit_rate", "kv_cache_alloc_new_blocks", "kv_cache_alloc_total_blocks",
    "kv_cache_missed_block", "arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns",
    "last_token_time_ns", "acceptance_rate", "total_accepted_draft_tokens", "total_draft_tokens",
)  # fmt: skip


def perf_tensors(
    outputs: Sequence[TokenOutput], names: Sequence[str], shape: tuple[int, ...], final: bool
) -> dict[str, NDArray[Any]]:
    """One tensor of the given shape, which has one element, for each of `names`.

    `outputs` are all tokens so far. `last_token_time_ns` is 0 except in the final response, as in NVIDIA's model.
    """
    metrics = outputs[0].metrics
    assert metrics is not None, "the first token of AsyncExecutor has metrics"
    num_reused, num_allocated = metrics.num_reused_blocks, metrics.num_allocated_blocks
    values = {
        "kv_cache_alloc_new_blocks": metrics.num_new_blocks,
        "kv_cache_alloc_total_blocks": num_allocated,
        "kv_cache_reused_blocks": num_reused,
        "kv_cache_reused_block": num_reused,
        "kv_cache_missed_block": num_allocated,
        "kv_cache_hit_rate": num_reused / (num_reused + num_allocated),
        "arrival_time_ns": nanoseconds(metrics.arrival_time),
        "first_scheduled_time_ns": nanoseconds(metrics.first_scheduled_time),
        "first_token_time_ns": nanoseconds(outputs[0].read_time),
        "last_token_time_ns": nanoseconds(outputs[-1].read_time) if final else 0,
        "acceptance_rate": 0.0,
        "total_accepted_draft_tokens": 0,
        "total_draft_tokens": 0,
    }
    return {name: np.full(shape, values[name], dtype(name)) for name in names}


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def dtype(name: str) -> type[np.generic]:
    if name in FLOATS:
        return np.float32
    return np.int64 if name.endswith("_ns") else np.int32
