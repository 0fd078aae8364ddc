"""What a step must do: the operations and the bytes of a decoder, counted from its sizes.

A multiplication and an addition count as two operations. Only matrix products are counted, the attention's included:
norms, rotary embedding, softmax and the gate are less than one per cent of them. Bytes are those that a step cannot
avoid: each weight is read once, whatever the batch size, and each sequence's keys and values are read once and the new
ones are written. Activations are not counted: a perfect kernel would keep them on the chip.

Sources: Pope et al., "Efficiently Scaling Transformer Inference" (2022); Williams et al., "Roofline" (2009).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from engineroom.checkpoint import ModelConfig, Sharding, plan
from engineroom.kit.errors import UserError

OPERATIONS_PER_MULTIPLY_ADD = 2
EMBEDDING, HEAD = "transformer.vocab_embedding.weight", "lm_head.weight"


class CountError(UserError, ValueError):
    """A step that no engine can run."""


class SequenceStep(NamedTuple):
    """One sequence's part of a step: tokens to compute, tokens already in the KV cache, and whether one is sampled."""

    new_tokens: int
    cached_tokens: int = 0
    samples: bool = True

    @property
    def attended_tokens(self) -> int:
        """Keys that the new tokens read together: each token reads those before it and its own."""
        return self.new_tokens * self.cached_tokens + self.new_tokens * (self.new_tokens + 1) // 2


@dataclass(frozen=True)
class Step:
    """One step of an engine. Raises CountError for a step without tokens."""

    sequences: tuple[SequenceStep, ...]

    def __post_init__(self) -> None:
        if not self.sequences or any(s.new_tokens < 1 or s.cached_tokens < 0 for s in self.sequences):
            raise CountError(
                f"{self.sequences} is not a step. A step has at least one sequence, each with at least one new token "
                f"and 0 or more cached tokens."
            )

    @classmethod
    def generation(cls, context_lengths: Iterable[int]) -> Step:
        """One new token of each sequence; `context_lengths` are the tokens that each has in the KV cache.

        `Step.generation([256] * 16)` is a batch of 16.
        """
        return cls(tuple(SequenceStep(1, length) for length in context_lengths))

    @classmethod
    def context(cls, prompt_lengths: Iterable[int]) -> Step:
        """The whole prompt of each sequence, with an empty KV cache; one token of each is sampled."""
        return cls(tuple(SequenceStep(length) for length in prompt_lengths))

    @property
    def num_tokens(self) -> int:
        return sum(sequence.new_tokens for sequence in self.sequences)

    @property
    def num_sampled(self) -> int:
        return sum(sequence.samples for sequence in self.sequences)


@dataclass(frozen=True)
class Count:
    """Operations, and bytes read and written."""

    operations: int
    bytes_read: int
    bytes_written: int = 0

    @property
    def num_bytes(self) -> int:
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in operations per byte; 0 when no bytes move."""
        return self.operations / self.num_bytes if self.num_bytes else 0.0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.operations + other.operations,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )


def count_step(model: ModelConfig, step: Step) -> Count:
    """Operations and bytes of one step. The weights and the KV cache have the model's dtype."""
    return sum(count_parts(model, step).values(), Count(0, 0))


def count_parts(model: ModelConfig, step: Step) -> Mapping[str, Count]:
    """The same for each part of the model, all layers together.

    Parts: `embedding`, `attention.qkv`, `attention` (scores and weighted sum), `attention.dense`, `mlp.fc`, `mlp.gate`,
    `mlp.proj`, `norm` and `lm_head`. Names are those of a TensorRT-LLM checkpoint.
    """
    itemsize = getattr(torch, model.dtype).itemsize
    parts = {"embedding": Count(0, step.num_tokens * model.hidden_size * itemsize)}
    parts["attention"] = _attention(model, step)
    for tensor in plan(model, Sharding()):
        if tensor.name == EMBEDDING:  # a step reads one row for each token
            continue
        rows = step.num_sampled if tensor.name == HEAD else step.num_tokens
        part = _part(tensor.name)
        parts[part] = parts.get(part, Count(0, 0)) + _tensor(tensor.shape, rows, itemsize)
    return parts


def kv_bytes_per_token(model: ModelConfig, dtype: str | None = None) -> int:
    """Bytes of one token's keys and values in all layers; `dtype` defaults to the model's."""
    itemsize: int = getattr(torch, dtype or model.dtype).itemsize
    return 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_size * itemsize


def _attention(model: ModelConfig, step: Step) -> Count:
    """Query heads that share a KV head share its bytes, not its operations."""
    attended = sum(sequence.attended_tokens for sequence in step.sequences)
    products = 2  # query by key, then weight by value
    multiply_adds = (
        products * model.num_hidden_layers * model.num_attention_heads * model.head_size * attended
    )
    kv_bytes = kv_bytes_per_token(model)
    cached = sum(sequence.cached_tokens for sequence in step.sequences)
    read, written = (cached + step.num_tokens) * kv_bytes, step.num_tokens * kv_bytes
    return Count(OPERATIONS_PER_MULTIPLY_ADD * multiply_adds, read, written)


def _tensor(shape: Sequence[int], rows: int, itemsize: int) -> Count:
    """A matrix [outputs, inputs] that multiplies `rows` vectors; a vector (norm or bias) is only read."""
    if not rows:
        return Count(0, 0)
    size = prod(shape)
    operations = OPERATIONS_PER_MULTIPLY_ADD * size * rows if len(shape) > 1 else 0
    return Count(operations, size * itemsize)


def _part(name: str) -> str:
    """transformer.layers.3.attention.qkv.weight -> attention.qkv; every norm is `norm`."""
    words = name.removesuffix(".weight").removesuffix(".bias").split(".")
    if words[-1].endswith("layernorm") or words[-1] == "ln_f":
        return "norm"
    return ".".join(words[3:]) if words[1:2] == ["layers"] else words[-1]
