"""Two checkpoints compared: configuration, names, shapes, dtypes, values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engineroom.checkpoint.checkpoint import Checkpoint
from engineroom.checkpoint.harmless import ABSENT, harmless
from engineroom.checkpoint.tensorfile import load


@dataclass(frozen=True)
class Difference:
    """`where` is `config` or a rank; `harmless` gives the reason why the engine comes out the same, or is empty."""

    where: str
    name: str
    what: str
    harmless: str = ""

    def __str__(self) -> str:
        reason = f"  (harmless: {self.harmless})" if self.harmless else ""
        return f"{self.where}: {self.name}: {self.what}{reason}"


def diff(a: Checkpoint, b: Checkpoint) -> list[Difference]:
    """Every difference, configuration first; an empty list means the same checkpoint.

    Values are compared bit by bit: 0.0 differs from -0.0, and a NaN equals itself.
    """
    found = list(diff_config(a.config, b.config))
    if len(a.ranks) != len(b.ranks):
        return [*found, Difference("ranks", "number", f"{len(a.ranks)} against {len(b.ranks)}")]
    for rank in range(len(a.ranks)):
        found += diff_rank(a, b, rank)
    return found


def diff_config(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> Iterator[Difference]:
    for key in sorted(a.keys() | b.keys()):
        name, left, right = prefix + key, a.get(key, ABSENT), b.get(key, ABSENT)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from diff_config(left, right, f"{name}.")
        elif left != right:
            reason = harmless(name, left, right)
            yield Difference("config", name, f"{left!r} against {right!r}", reason)


def diff_rank(a: Checkpoint, b: Checkpoint, rank: int) -> Iterator[Difference]:
    where, mine, theirs = f"rank {rank}", a.ranks[rank], b.ranks[rank]
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in theirs or name not in mine:
            yield Difference(where, name, "only in the " + ("first" if name in mine else "second"))
        elif str(mine[name]) != str(theirs[name]):
            yield Difference(where, name, f"{mine[name]} against {theirs[name]}")
        elif what := diff_values(load(mine[name]), load(theirs[name])):
            yield Difference(where, name, what)


def diff_values(a: torch.Tensor, b: torch.Tensor) -> str:
    """How many values differ and by how much; empty when all bits are equal. Both: same shape and dtype."""
    bits = {4: torch.int32, 2: torch.int16}[a.element_size()]
    unequal = a.view(bits) != b.view(bits)
    if not (count := int(unequal.sum())):
        return ""
    largest = (a.float() - b.float()).abs().nan_to_num(float("inf")).max()
    return f"{count:,} of {a.numel():,} values differ, by up to {largest:g}"
