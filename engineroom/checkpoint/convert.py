"""Hugging Face folder -> TensorRT-LLM checkpoint, streaming: each source tensor is read once, block by block."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from engineroom.checkpoint.config import DTYPE_NAMES, infer_dtype, to_trtllm
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.plan import Layout, Piece, Target, plan
from engineroom.checkpoint.source import HfModel, open_model
from engineroom.checkpoint.tensorfile import DTYPES, SIZES, Stored, create
from engineroom.kit.output import output_directory

BLOCK = 2**20  # bytes read at once; with 16 MB the page cache wants large pages, and a VM may wait for them
CONFIG = "config.json"
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Landing:
    """Where a piece goes: from row `row` of a tensor in an open rank file; all of the piece's columns are its width."""

    piece: Piece
    file: int
    place: Stored
    row: int


def convert(
    model_dir: str | Path,
    output_dir: str | Path,
    *,
    dtype: str = "auto",
    layout: Layout | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write `config.json` and `rank{N}.safetensors`, N = 0 .. tp_size * pp_size - 1, and return their folder.

    `progress` is called with the number of source bytes just finished. Raises CheckpointError for bad input, a full
    disk, or a value that the wished dtype cannot hold; nothing is left behind then.
    """
    source, layout = open_model(model_dir), layout or Layout()
    chosen = infer_dtype(dtype, source.config)
    targets = plan(source.model, layout)
    with output_directory(output_dir, nbytes(targets, chosen)) as folder, ExitStack() as files:
        landings = _create(folder, targets, DTYPE_NAMES[chosen], files)
        for name in sorted(
            landings, key=lambda name: (source.tensors[name].file, source.tensors[name].begin)
        ):
            stream(name, source.tensors[name], landings[name], progress)
        _write_config(folder, source, chosen, layout)
    return Path(output_dir)


def nbytes(targets: list[Target], dtype: str) -> int:
    """Bytes of all tensors in `dtype`."""
    return sum(prod(target.shape) for target in targets) * SIZES[DTYPE_NAMES[dtype]]


def source_bytes(source: HfModel) -> int:
    """Bytes that a conversion reads: what `progress` counts up to."""
    return sum(tensor.nbytes for tensor in source.tensors.values())


def _create(folder: Path, targets: list[Target], dtype: str, files: ExitStack) -> dict[str, list[Landing]]:
    """Make the rank files at their full size; say for each source tensor where its pieces land."""
    ranks: dict[int, list[Target]] = defaultdict(list)
    for target in targets:
        ranks[target.rank].append(target)
    landings: dict[str, list[Landing]] = defaultdict(list)
    for rank, mine in ranks.items():
        path = folder / f"rank{rank}.safetensors"
        places = create(path, {target.name: (dtype, target.shape) for target in mine})
        file = files.enter_context(path.open("r+b", buffering=0)).fileno()
        for target in mine:
            row = 0
            for piece in target.pieces:
                landings[piece.source].append(Landing(piece, file, places[target.name], row))
                row += len(piece.rows)
    return landings


def stream(name: str, stored: Stored, landings: list[Landing], progress: Progress | None) -> None:
    """Copy one source tensor to all its landings, in blocks of rows of about BLOCK bytes."""
    to = DTYPES[landings[0].place.dtype]
    for first, block in blocks(stored):
        ready = block.to(to)
        if to == torch.float16 and ready.isinf().any() and not block.isinf().any():
            raise CheckpointError(
                f"'{name}' has values beyond float16's largest, 65504; the largest here is {block.abs().max():g}. "
                f"Use --dtype bfloat16."
            )
        for landing in landings:
            land(ready, first, landing)
        if progress:
            progress(block.numel() * block.element_size())


def blocks(stored: Stored) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, tensor [rows, columns]) for a matrix or vector; a vector is a matrix of one column.

    All blocks share one buffer: take what you need of one before asking for the next.
    """
    columns = prod(stored.shape[1:])
    width = columns * SIZES[stored.dtype]
    step = max(1, BLOCK // width)
    buffer = memoryview(bytearray(min(step, stored.shape[0]) * width))
    with stored.file.open("rb", buffering=0) as file:
        for first in range(0, stored.shape[0], step):
            rows = min(step, stored.shape[0] - first)
            raw = buffer[: rows * width]
            file.seek(stored.begin + first * width)
            if file.readinto(raw) != len(raw):
                raise CheckpointError(f"{stored.file} became shorter while it was read. Convert again.")
            yield first, torch.frombuffer(raw, dtype=DTYPES[stored.dtype]).reshape(rows, columns)


def land(block: torch.Tensor, first: int, landing: Landing) -> None:
    """Write the part of `block` (source rows from `first`) that the landing's piece asks for."""
    piece = landing.piece
    begin, end = max(piece.rows.start, first), min(piece.rows.stop, first + len(block))
    if begin >= end:
        return
    part = block[begin - first : end - first]
    if piece.columns is not None:
        part = part[:, piece.columns.start : piece.columns.stop].contiguous()
    offset = (landing.row + begin - piece.rows.start) * part.shape[1] * part.element_size()
    raw = memoryview(part.view(torch.uint8).numpy()).cast("B")
    at = landing.place.begin + offset
    while raw:
        written = os.pwrite(landing.file, raw, at)
        raw, at = raw[written:], at + written


def _write_config(folder: Path, source: HfModel, dtype: str, layout: Layout) -> None:
    config = to_trtllm(
        source.model,
        source.config,
        dtype,
        layout.mapping,
        layout.use_parallel_embedding,
        layout.embedding_sharding_dim,
    )
    (folder / CONFIG).write_text(json.dumps(config, indent=4) + "\n")
