"""List the tensors of a checkpoint or of a plan, by rank; consecutive layers with equal tensors are listed once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import prod
from typing import NamedTuple

from engineroom.checkpoint.checkpoint import Checkpoint
from engineroom.checkpoint.config import SAFETENSORS_DTYPES
from engineroom.checkpoint.plan import RankTensor, Shape
from engineroom.checkpoint.tensorfile import DTYPE_BYTES

LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.*)")


class TensorRow(NamedTuple):
    """One tensor of the listing; `dtype` is spelled as in safetensors."""

    name: str
    dtype: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"    {self.name:<34} {self.dtype:<4} {list(self.shape)!s:<16} {self.nbytes:>14,} B"


def inspect(checkpoint: Checkpoint, rank: int | None = None) -> str:
    """A listing of the tensors of one rank, or of all ranks: name, dtype, shape, bytes."""
    ranks = range(len(checkpoint.ranks)) if rank is None else [rank]
    sections: list[str] = []
    for rank_index in ranks:
        tensors = checkpoint.ranks[rank_index].items()
        sections.append(
            render(rank_index, [TensorRow(name, tensor.dtype, tensor.shape) for name, tensor in tensors])
        )
    return "\n".join(sections)


def describe(targets: Iterable[RankTensor], dtype: str) -> str:
    """A listing of a plan's tensors in the same form; `dtype` is the one that the plan writes, as "float16"."""
    file_dtype = SAFETENSORS_DTYPES[dtype]
    sections: list[str] = []
    for rank, tensors in groupby(targets, key=lambda target: target.rank):
        sections.append(
            render(rank, [TensorRow(tensor.name, file_dtype, tensor.shape) for tensor in tensors])
        )
    return "\n".join(sections)


def render(rank: int, rows: list[TensorRow]) -> str:
    total = sum(row.nbytes for row in rows)
    lines = [f"rank {rank}: {len(rows)} tensors, {total / 1e6:,.2f} MB"]
    for title, group in group_layers(rows):
        lines.append(f"  {title}")
        lines += [str(row) for row in group]
    return "\n".join(lines)


def group_layers(rows: list[TensorRow]) -> Iterator[tuple[str, list[TensorRow]]]:
    """Yield (title, rows), first for the tensors outside the layers.

    Then come the layers; consecutive layers with equal tensors are one group, such as `0-3`.
    """
    layers: dict[int, list[TensorRow]] = {}
    outside: list[TensorRow] = []
    for row in rows:
        if match := LAYER.match(row.name):
            layers.setdefault(int(match[1]), []).append(row._replace(name=match[2]))
        else:
            outside.append(row)
    if outside:
        yield "outside of the layers", outside
    for layer, group in groupby(sorted(layers.items()), key=lambda item: sorted(item[1])):
        indices = [index for index, _ in group]
        label = f"{indices[0]}" if len(indices) == 1 else f"{indices[0]}-{indices[-1]}, each"
        yield f"transformer.layers.{label}", layer
