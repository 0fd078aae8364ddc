"""Compare two checkpoints: their configuration, and the names, shapes, dtypes and values of their tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engineroom.checkpoint.checkpoint import Checkpoint
from engineroom.checkpoint.harmless import ABSENT, harmless_reason
from engineroom.checkpoint.tensorfile import load


@dataclass(frozen=True)
class Difference:
    """One difference. `location` is `config`, `ranks` or a rank; `name` is the key or the tensor there.

    `harmless_reason` says why both checkpoints give the same engine; it is empty when the engines may differ.
    """

    location: str
    name: str
    description: str
    harmless_reason: str = ""

    def __str__(self) -> str:
        reason = f"  (harmless: {self.harmless_reason})" if self.harmless_reason else ""
        return f"{self.location}: {self.name}: {self.description}{reason}"


def diff(a: Checkpoint, b: Checkpoint) -> list[Difference]:
    """Every difference, configuration first; an empty list when the checkpoints are the same.

    Values are compared bit by bit: 0.0 differs from -0.0, and a NaN equals itself.
    """
    differences = list(diff_config(a.config, b.config))
    if len(a.ranks) != len(b.ranks):
        return [*differences, Difference("ranks", "number", f"{len(a.ranks)} against {len(b.ranks)}")]
    for rank in range(len(a.ranks)):
        differences += diff_rank(a, b, rank)
    return differences


def diff_config(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> Iterator[Difference]:
    for key in sorted(a.keys() | b.keys()):
        name = prefix + key
        left, right = a.get(key, ABSENT), b.get(key, ABSENT)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from diff_config(left, right, f"{name}.")
        elif left != right:
            reason = harmless_reason(name, left, right)
            yield Difference("config", name, f"{left!r} against {right!r}", reason)


def diff_rank(a: Checkpoint, b: Checkpoint, rank: int) -> Iterator[Difference]:
    location, left, right = f"rank {rank}", a.ranks[rank], b.ranks[rank]
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            yield Difference(location, name, "only in the first")
        elif name not in left:
            yield Difference(location, name, "only in the second")
        elif str(left[name]) != str(right[name]):
            yield Difference(location, name, f"{left[name]} against {right[name]}")
        elif description := diff_values(load(left[name]), load(right[name])):
            yield Difference(location, name, description)


def diff_values(a: torch.Tensor, b: torch.Tensor) -> str:
    """How many values differ and by how much; empty when all bits are equal.

    `a` and `b` have the same shape and dtype.
    """
    bits = {4: torch.int32, 2: torch.int16}[a.element_size()]
    count = int((a.view(bits) != b.view(bits)).sum())
    if count == 0:
        return ""
    largest = (a.float() - b.float()).abs().nan_to_num(float("inf")).max()
    return f"{count:,} of {a.numel():,} values differ, by up to {largest:g}"
