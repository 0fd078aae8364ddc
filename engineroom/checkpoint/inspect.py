"""What a checkpoint holds, as text: tensors by rank, equal layers folded into one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from math import prod

from engineroom.checkpoint.checkpoint import Checkpoint
from engineroom.checkpoint.config import DTYPE_NAMES
from engineroom.checkpoint.plan import Target
from engineroom.checkpoint.tensorfile import SIZES, Stored

LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.*)")
Row = tuple[str, str, tuple[int, ...]]  # name, dtype, shape


def inspect(checkpoint: Checkpoint, rank: int | None = None) -> str:
    """The tensors of one rank, or of all: name, dtype, shape, bytes."""
    ranks = range(len(checkpoint.ranks)) if rank is None else [rank]
    parts = [render(r, [_row(name, tensor) for name, tensor in checkpoint.ranks[r].items()]) for r in ranks]
    return "\n".join(parts)


def describe(targets: Iterable[Target], dtype: str) -> str:
    """A plan in the same form, with nothing on disk yet."""
    grouped = groupby(targets, key=lambda target: target.rank)
    kind = DTYPE_NAMES[dtype]
    return "\n".join(render(r, [(t.name, kind, t.shape) for t in mine]) for r, mine in grouped)


def _row(name: str, tensor: Stored) -> Row:
    return name, tensor.dtype, tensor.shape


def render(rank: int, rows: list[Row]) -> str:
    total = sum(_bytes(row) for row in rows)
    lines = [f"rank {rank}: {len(rows)} tensors, {total / 1e6:,.2f} MB"]
    for title, body in folded(rows):
        lines.append(f"  {title}")
        lines += [
            f"    {name:<34} {dtype:<4} {list(shape)!s:<16} {_bytes(row):>14,} B"
            for row in body
            for name, dtype, shape in [row]
        ]
    return "\n".join(lines)


def folded(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Layers with the same tensors come once, as `layers.0-3`; what is outside of the layers comes by its module."""
    layers: dict[int, list[Row]] = {}
    outside: list[Row] = []
    for name, dtype, shape in rows:
        if match := LAYER.match(name):
            layers.setdefault(int(match[1]), []).append((match[2], dtype, shape))
        else:
            outside.append((name, dtype, shape))
    if outside:
        yield "outside of the layers", outside
    for body, group in groupby(sorted(layers.items()), key=lambda item: sorted(item[1])):
        numbers = [number for number, _ in group]
        label = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}, each"
        yield f"transformer.layers.{label}", body


def _bytes(row: Row) -> int:
    return prod(row[2]) * SIZES[row[1]]
