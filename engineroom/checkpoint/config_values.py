"""The values of a config.json, read with the checks that each kind needs. Errors are CheckpointErrors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError


def whole_number(config: dict[str, Any], name: str, path: Path) -> int:
    size = config.get(name)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CheckpointError(f"{path}: '{name}' is {size!r}; expected a whole number from 1 up.")
    return size


def positive_number(config: dict[str, Any], name: str, path: Path) -> float:
    number = config.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        raise CheckpointError(f"{path}: '{name}' is {number!r}; expected a number above 0.")
    return float(number)


def flag(config: dict[str, Any], name: str, path: Path) -> bool:
    """The value of a switch; absent and null mean false."""
    value = config.get(name)
    if not isinstance(value, bool | None):
        raise CheckpointError(f"{path}: '{name}' is {value!r}; expected true or false.")
    return bool(value)


def source_dtype(config: dict[str, Any], path: Path) -> str | None:
    """The dtype that a Hugging Face config.json names, as torch spells it; None if it names none.

    `dtype` counts before `torch_dtype`, as in transformers. Raises CheckpointError for anything but a dtype of floats.
    """
    key = "torch_dtype" if config.get("dtype") is None else "dtype"
    name = config.get(key)
    if name is None:
        return None
    dtype = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"{path}: '{key}' is {name!r}; expected the name of a dtype such as bfloat16.")
    return str(dtype).removeprefix("torch.")


def longest_sequence(config: dict[str, Any], rotary_scaling: dict[str, Any] | None) -> float:
    """Tokens of the longest sequence that the model was made for; infinite when config.json does not say."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return float("inf")
    scaling = rotary_scaling or {}
    is_linear = scaling.get("rope_type", scaling.get("type")) == "linear"
    return positions * float(scaling["factor"]) if is_linear else positions
