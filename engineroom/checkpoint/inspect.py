"""The tensors of a checkpoint or of a plan as text, by rank; layers with the same tensors are listed once."""

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
    """One tensor of the listing; `dtype` as safetensors spells it."""

    name: str
    dtype: str
    shape: Shape

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"    {self.name:<34} {self.dtype:<4} {list(self.shape)!s:<16} {self.nbytes:>14,} B"


def inspect(checkpoint: Checkpoint, rank: int | None = None) -> str:
    """The tensors of one rank, or of all: name, dtype, shape, bytes."""
    ranks = range(len(checkpoint.ranks)) if rank is None else [rank]
    sections: list[str] = []
    for number in ranks:
        tensors = checkpoint.ranks[number].items()
        sections.append(
            render(number, [TensorRow(name, tensor.dtype, tensor.shape) for name, tensor in tensors])
        )
    return "\n".join(sections)


def describe(targets: Iterable[RankTensor], dtype: str) -> str:
    """A plan in the same form, before anything is written."""
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
    """(title, rows): the tensors outside the layers, then the layers; equal neighbouring layers come once, as `0-3`."""
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
        numbers = [number for number, _ in group]
        label = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}, each"
        yield f"transformer.layers.{label}", layer
