"""What limits cost: bytes of weights, KV cache and activations, and how three engines divide a GPU's memory.

TensorRT-LLM: "Memory Usage of TensorRT-LLM", nvidia.github.io/TensorRT-LLM/reference/memory.html.
vLLM 0.32: Worker.determine_available_memory (vllm/v1/worker/gpu_worker.py), request_memory (vllm/v1/worker/utils.py).
This engine: num_kv_cache_blocks in engineroom/engine/runtime/executor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from engineroom.checkpoint import ModelConfig, Sharding, plan
from engineroom.checkpoint.config import from_hugging_face
from engineroom.engine.config import Limits
from engineroom.load.shape import SHAPES
from engineroom.profile import counts

FREE_MEMORY_FRACTION = (
    0.9  # TensorRT-LLM's kv_cache_free_gpu_mem_fraction, and this engine's default on a GPU
)
GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.32's default
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes of one GPU: for the weights, for the activations of one step, for the KV cache, and `unused`."""

    total: float
    weights: float
    activations: float
    kv_cache: float

    @property
    def unused(self) -> float:
        return self.total - self.weights - self.activations - self.kv_cache


def public_model(name: str) -> ModelConfig:
    """The sizes of a public model in engineroom.load.shape.SHAPES, such as "llama-3.1-8b"; it needs no weights."""
    return from_hugging_face({"architectures": ["LlamaForCausalLM"], **SHAPES[name]}, Path(name))


def itemsize(dtype: str) -> int:
    """Bytes of one value in "float32", "float16" or "bfloat16"."""
    return int(getattr(torch, dtype).itemsize)


def weight_bytes(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """Bytes of all tensors in a checkpoint of one rank."""
    return sum(prod(tensor.shape) for tensor in plan(model, Sharding())) * itemsize(dtype)


def kv_bytes_per_token(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """Bytes of one key and one value in every layer and KV head."""
    return counts.kv_bytes_per_token(model, dtype)


def activation_bytes(model: ModelConfig, limits: Limits, dtype: str = "bfloat16") -> int:
    """The larger of two peaks of a step: the MLP's tensors of all tokens, or the float32 logits of all requests.

    The MLP's tensors are x [max_num_tokens, hidden_size], and gate, fc and their product [max_num_tokens,
    intermediate_size]. This is a lower bound that shows the effect of `max_num_tokens`. Real engines measure:
    TensorRT during the build, with the largest shapes; vLLM at start, with a run of max_num_batched_tokens.
    """
    mlp_values = limits.max_num_tokens * (model.hidden_size + 3 * model.intermediate_size)
    logits = limits.max_batch_size * model.vocab_size
    return max(mlp_values * itemsize(dtype), logits * FLOAT32_BYTES)


def max_kv_cache_bytes(model: ModelConfig, limits: Limits, dtype: str = "bfloat16") -> int:
    """Bytes of KV cache when all requests have their maximum length; the limits cannot use a larger cache."""
    num_blocks = limits.max_batch_size * limits.max_blocks_per_sequence
    return num_blocks * limits.tokens_per_block * kv_bytes_per_token(model, dtype)


def this_engine_budget(
    total: float, model: ModelConfig, limits: Limits, dtype: str = "bfloat16"
) -> MemoryBudget:
    """The KV cache takes a fraction of what the weights leave free, but no more than the limits can use.

    Activations use the remainder.
    """
    weights = weight_bytes(model, dtype)
    kv_cache = min(FREE_MEMORY_FRACTION * (total - weights), max_kv_cache_bytes(model, limits, dtype))
    return MemoryBudget(total, weights, activation_bytes(model, limits, dtype), kv_cache)


def tensorrt_llm_budget(
    total: float, model: ModelConfig, limits: Limits, dtype: str = "bfloat16"
) -> MemoryBudget:
    """The KV cache takes a fraction of what weights and activations leave free.

    The limits fixed the size of the activations when the engine was built.
    """
    weights, activations = weight_bytes(model, dtype), activation_bytes(model, limits, dtype)
    return MemoryBudget(total, weights, activations, FREE_MEMORY_FRACTION * (total - weights - activations))


def vllm_budget(total: float, model: ModelConfig, limits: Limits, dtype: str = "bfloat16") -> MemoryBudget:
    """The KV cache takes a fraction of the whole GPU, less weights and activations.

    `limits.max_num_tokens` is vLLM's max_num_batched_tokens.
    """
    weights, activations = weight_bytes(model, dtype), activation_bytes(model, limits, dtype)
    return MemoryBudget(total, weights, activations, GPU_MEMORY_UTILIZATION * total - weights - activations)


def max_concurrent_requests(
    kv_cache: float, bytes_per_token: int, tokens: int, tokens_per_block: int = 32
) -> int:
    """How many requests of `tokens` tokens, prompt and answer, `guaranteed_no_evict` runs at once.

    `kv_cache` is in bytes.
    """
    num_blocks = int(kv_cache // (bytes_per_token * tokens_per_block))
    blocks_per_request = -(-tokens // tokens_per_block)
    return num_blocks // blocks_per_request
