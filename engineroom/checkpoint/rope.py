"""Frequencies of the rotary position embedding."""

from __future__ import annotations

import math
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError


def frequencies(head_size: int, base: float, scaling: dict[str, Any] | None) -> torch.Tensor:
    """Inverse frequencies, float32 [head_size / 2], with Llama 3.1's scaling, linear scaling, or none.

    Follows modeling_rope_utils.py of transformers. Raises CheckpointError for another kind of scaling.
    """
    unscaled = 1.0 / base ** (torch.arange(0, head_size, 2).float() / head_size)
    if not scaling:
        return unscaled
    rope_type = scaling.get("rope_type", scaling.get("type"))
    if rope_type not in ("linear", "llama3"):
        raise CheckpointError(
            f"rotary scaling {rope_type!r} is not supported; expected 'llama3', 'linear' or none."
        )
    scaled = unscaled / float(scaling["factor"])
    if rope_type == "linear":
        return scaled
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    rotations = scaling["original_max_position_embeddings"] * unscaled / (2 * math.pi)
    smooth = ((rotations - low) / (high - low)).clamp(0, 1)
    return unscaled * smooth + scaled * (1 - smooth)
