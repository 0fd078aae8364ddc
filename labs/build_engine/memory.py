"""What limits cost: bytes of weights, KV cache and activations, and how three engines share out a GPU's memory.

TensorRT-LLM: "Memory Usage of TensorRT-LLM", nvidia.github.io/TensorRT-LLM/reference/memory.html.
vLLM 0.32: Worker.determine_available_memory (vllm/v1/worker/gpu_worker.py), request_memory (vllm/v1/worker/utils.py).
This engine: num_blocks in engineroom/engine/runtime/executor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from engineroom.checkpoint import Layout, ModelConfig, plan
from engineroom.checkpoint.config import from_hugging_face
from engineroom.engine.config import BuildConfig
from engineroom.kit.process import Server
from engineroom.load.shape import SHAPES
from engineroom.metrics.prometheus import fetch

KV_FRACTION = 0.9  # TensorRT-LLM's kv_cache_free_gpu_mem_fraction, and this engine's on a GPU
GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.32's default


@dataclass(frozen=True)
class Budget:
    """Bytes of one GPU: for weights, for one step's activations, for the KV cache; `left` is nobody's."""

    total: float
    weights: float
    activations: float
    kv_cache: float

    @property
    def left(self) -> float:
        return self.total - self.weights - self.activations - self.kv_cache


def public(name: str) -> ModelConfig:
    """A public model's sizes by name, one of engineroom.load.shape.SHAPES, such as "llama-3.1-8b"; without weights."""
    return from_hugging_face({"architectures": ["LlamaForCausalLM"], **SHAPES[name]}, Path(name))


def itemsize(dtype: str) -> int:
    """Bytes of one value, "float32", "float16" or "bfloat16"."""
    return int(getattr(torch, dtype).itemsize)


def weight_bytes(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """Of all tensors of a checkpoint of one rank."""
    return sum(prod(target.shape) for target in plan(model, Layout())) * itemsize(dtype)


def kv_bytes_per_token(model: ModelConfig, dtype: str = "bfloat16") -> int:
    """A key and a value of every layer and KV head."""
    return 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_size * itemsize(dtype)


def activation_bytes(model: ModelConfig, limits: BuildConfig, dtype: str = "bfloat16") -> int:
    """The widest moment of a step, counted: x, gate, fc and their product for all tokens, or all requests' logits.

    A lower bound, good for seeing what `max_num_tokens` does. Real engines find out for themselves: TensorRT when it
    builds, by the largest shapes; vLLM when it starts, by a run of max_num_batched_tokens.
    """
    mlp = int(limits.max_num_tokens or 0) * (model.hidden_size + 3 * model.intermediate_size)
    return max(mlp * itemsize(dtype), limits.max_batch_size * model.vocab_size * 4)


def most_kv_bytes(model: ModelConfig, limits: BuildConfig, dtype: str = "bfloat16") -> int:
    """All requests at their longest; a larger pool than that could never be used."""
    blocks = limits.max_batch_size * limits.blocks_per_sequence
    return blocks * limits.tokens_per_block * kv_bytes_per_token(model, dtype)


def this_engine(total: float, model: ModelConfig, limits: BuildConfig, dtype: str = "bfloat16") -> Budget:
    """A share of what is free after the weights, at most what the limits can use; activations take of the rest."""
    weights = weight_bytes(model, dtype)
    pool = min(KV_FRACTION * (total - weights), most_kv_bytes(model, limits, dtype))
    return Budget(total, weights, activation_bytes(model, limits, dtype), pool)


def tensorrt_llm(total: float, model: ModelConfig, limits: BuildConfig, dtype: str = "bfloat16") -> Budget:
    """A share of what is free after weights and activations, whose size the limits fixed when the engine was built."""
    weights, activations = weight_bytes(model, dtype), activation_bytes(model, limits, dtype)
    return Budget(total, weights, activations, KV_FRACTION * (total - weights - activations))


def vllm(total: float, model: ModelConfig, limits: BuildConfig, dtype: str = "bfloat16") -> Budget:
    """A share of the whole GPU, less weights and activations; max_num_batched_tokens is max_num_tokens here."""
    weights, activations = weight_bytes(model, dtype), activation_bytes(model, limits, dtype)
    return Budget(total, weights, activations, GPU_MEMORY_UTILIZATION * total - weights - activations)


def requests_that_fit(kv_cache: float, bytes_per_token: int, tokens: int, tokens_per_block: int = 32) -> int:
    """Requests of `tokens` tokens each, prompt and answer, whose blocks all fit: guaranteed_no_evict's count."""
    blocks = int(kv_cache // (bytes_per_token * tokens_per_block))
    return blocks // -(-tokens // tokens_per_block)


def vllm_kv_cache(server: Server) -> tuple[int, int]:
    """(bytes, tokens) of a running vLLM's KV cache, as it reports them; start it with kv_cache_memory_bytes."""
    labels = next(sample.labels for sample in fetch(server) if sample.name == "vllm:cache_config_info")
    return int(labels["kv_cache_memory_bytes"]), int(labels["num_gpu_blocks"]) * int(labels["block_size"])
