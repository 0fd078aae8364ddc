"""The rotary position embedding: what config.json says about it, and its frequencies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError

TYPES = ("default", "linear", "llama3")
NUMBERS = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
NUMBERS["llama3"] += ("original_max_position_embeddings",)
KEYS = {"type", "rope_type", "rope_theta", "partial_rotary_factor", *NUMBERS["llama3"]}


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


def read_rope(config: dict[str, Any], path: Path) -> tuple[float, dict[str, Any] | None]:
    """(rotary_base, rotary_scaling) of a Hugging Face config.json, in any of its spellings.

    The order is that of transformers 5.19 (convert_rope_params_to_dict in modeling_rope_utils.py): rope_scaling comes
    before rope_parameters; a rope_theta inside it before the one beside it; rope_type before type; for llama3, an
    original_max_position_embeddings beside it before the one inside. Raises CheckpointError for a kind of scaling or a
    key that is not converted.
    """
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    parameters = config.get(name) or {}
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{path}: '{name}' is {parameters!r}; expected an object or null.")
    parameters = dict(parameters)
    base = parameters.pop("rope_theta", config.get("rope_theta", 10000.0))
    _check_number("rope_theta", base, path)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in TYPES:
        raise CheckpointError(
            f"{path}: '{name}' has the type {rope_type!r}, which is not converted; expected one of {', '.join(TYPES)}."
        )
    partial = parameters.pop("partial_rotary_factor", None)
    unknown = sorted(key for key, value in parameters.items() if key not in KEYS and value is not None)
    if unknown or partial not in (None, 1):
        key = unknown[0] if unknown else "partial_rotary_factor"
        raise CheckpointError(
            f"{path}: '{name}' has '{key}', which is not converted. Expected {', '.join(sorted(KEYS))}, with a "
            f"partial_rotary_factor of 1."
        )
    if rope_type == "default":
        return float(base), None
    if rope_type == "llama3":
        inside = parameters.get("original_max_position_embeddings", config.get("max_position_embeddings"))
        original = config.get("original_max_position_embeddings", inside)
        parameters["original_max_position_embeddings"] = original
    for key in NUMBERS[rope_type]:
        _check_number(f"{name}.{key}", parameters.get(key), path)
    if parameters.get("type", rope_type) != rope_type:
        del parameters["type"]
    return float(base), parameters


def _check_number(name: str, value: object, path: Path) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{path}: '{name}' is {value!r}; expected a number above 0.")
