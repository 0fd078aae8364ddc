"""Frequencies of the rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError


def frequencies(size: int, base: float, scaling: dict[str, Any] | None) -> torch.Tensor:
    """float32 [size / 2]: inverse frequencies, with the scaling of Llama 3.1 or a linear one.

    Follows transformers' modeling_rope_utils. Raises CheckpointError for another kind of scaling.
    """
    plain = 1.0 / base ** (torch.arange(0, size, 2).float() / size)
    if not scaling:
        return plain
    kind, factor = scaling.get("rope_type", scaling.get("type")), float(scaling["factor"])
    if kind == "linear":
        return plain / factor
    if kind != "llama3":
        raise CheckpointError(f"rope scaling {kind!r}: only 'llama3' and 'linear' are known here.")
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * smooth + plain / factor * (1 - smooth)
