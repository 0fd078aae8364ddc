"""The arithmetic of lesson 11: what a decode step must do, and the roof above it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]  # of a config.json
MULTIPLY_ADD = 2  # operations
MLP_MATRICES = 3  # gate, up and down


def projection_weights(config: Config) -> int:
    """Values in the four attention matrices of one layer: query, key, value and output."""
    query_size = config["num_attention_heads"] * config["head_dim"]
    kv_size = config["num_key_value_heads"] * config["head_dim"]
    return config["hidden_size"] * (2 * query_size + 2 * kv_size)


def mlp_weights(config: Config, matrices: int = MLP_MATRICES) -> int:
    """Values in the matrices of one layer's MLP."""
    return matrices * config["hidden_size"] * config["intermediate_size"]


def head_weights(config: Config) -> int:
    """Values in the matrix that turns the last hidden state into logits."""
    return config["vocab_size"] * config["hidden_size"]


def matrix_weights(config: Config) -> int:
    """Values in all matrices that multiply a token's vector: those of the layers, and the head."""
    per_layer = projection_weights(config) + mlp_weights(config)
    return config["num_hidden_layers"] * per_layer + head_weights(config)


def kv_values(config: Config, batch: int, context: int) -> int:
    """Values in the keys and values that `batch` sequences of `context` tokens read."""
    heads = config["num_key_value_heads"]
    return 2 * config["num_hidden_layers"] * heads * config["head_dim"] * context * batch


def attention_products(config: Config, batch: int, context: int) -> int:
    """Multiply-adds of attention: each query with each key, and each weight with each value."""
    heads = config["num_attention_heads"]
    return 2 * config["num_hidden_layers"] * heads * config["head_dim"] * context * batch


def step_operations(config: Config, batch: int, context: int) -> int:
    """Operations of the matrix products of one decode step, one token for each of `batch` sequences."""
    return MULTIPLY_ADD * (batch * matrix_weights(config) + attention_products(config, batch, context))


def step_bytes(config: Config, batch: int, context: int, itemsize: int) -> int:
    """Bytes that one decode step cannot avoid reading: each weight once, and the keys and values of each sequence."""
    return itemsize * (matrix_weights(config) + kv_values(config, batch, context))


def attainable(operations: float, num_bytes: float, bandwidth: float, matrix_rate: float) -> float:
    """The highest rate, in operations per second, under two ceilings: bytes and operations per second."""
    return min(matrix_rate, operations / num_bytes * bandwidth)


def share_of_roof(
    operations: float, num_bytes: float, seconds: float, bandwidth: float, matrix_rate: float
) -> float:
    """The rate of a step that took `seconds`, as a share of the attainable one."""
    return operations / seconds / attainable(operations, num_bytes, bandwidth, matrix_rate)
