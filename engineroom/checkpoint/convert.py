"""Convert a Hugging Face folder to a TensorRT-LLM checkpoint. Each source tensor is read once, block by block."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path

import torch

from engineroom.checkpoint.config import SAFETENSORS_DTYPES, infer_dtype, to_trtllm
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.mapping import Sharding
from engineroom.checkpoint.plan import RankTensor, SourceSlice, plan
from engineroom.checkpoint.source import open_model
from engineroom.checkpoint.tensorfile import DTYPE_BYTES, TORCH_DTYPES, StoredTensor, create
from engineroom.kit.output import output_directory

# With blocks of 16 MB the page cache asks for huge pages, which are slow to get in a virtual machine.
BLOCK_BYTES = 2**20
OnRead = Callable[[int], object]


@dataclass(frozen=True)
class Destination:
    """Where a source slice is written: from row `row` of `tensor`, in the open rank file `descriptor`.

    The slice is as wide as the tensor.
    """

    source_slice: SourceSlice
    descriptor: int
    tensor: StoredTensor
    row: int


def convert(
    model_dir: str | Path,
    output_dir: str | Path,
    *,
    dtype: str = "auto",
    sharding: Sharding | None = None,
    on_read: OnRead | None = None,
    follow_links: bool = True,
) -> Path:
    """Write `config.json` and `rank{N}.safetensors`, N = 0 .. tp_size * pp_size - 1, and return their folder.

    `on_read` is called after each block with the number of source bytes that were read. Without `follow_links`, a
    weight file that a link leads outside the model folder is refused. Raises CheckpointError for bad input and for a
    value that `dtype` cannot hold, and OutputError when `output_dir` cannot be written or the disk is full. After an
    error nothing is left behind.
    """
    source, sharding = open_model(model_dir, follow_links), sharding or Sharding()
    target_dtype = infer_dtype(dtype, source.model.dtype)
    targets = plan(source.model, sharding)
    with output_directory(output_dir, nbytes(targets, target_dtype)) as folder, ExitStack() as files:
        destinations = _create_rank_files(folder, targets, SAFETENSORS_DTYPES[target_dtype], files)
        for name, tensor in sorted(source.tensors.items(), key=lambda item: (item[1].file, item[1].offset)):
            copy_tensor(name, tensor, destinations[name], on_read)
        config = to_trtllm(source.model, source.config, target_dtype, sharding)
        (folder / "config.json").write_text(json.dumps(config, indent=4) + "\n")
    return Path(output_dir)


def nbytes(targets: list[RankTensor], dtype: str) -> int:
    """Bytes of all tensors when they are written in `dtype`, as ModelConfig spells it."""
    return sum(prod(target.shape) for target in targets) * DTYPE_BYTES[SAFETENSORS_DTYPES[dtype]]


def _create_rank_files(
    folder: Path, targets: list[RankTensor], dtype: str, files: ExitStack
) -> dict[str, list[Destination]]:
    """Create the rank files at their full size; return the destinations of each source tensor, by its name."""
    destinations: dict[str, list[Destination]] = defaultdict(list)
    for rank, rank_targets in groupby(targets, key=lambda target: target.rank):
        by_name = {target.name: target for target in rank_targets}
        path = folder / f"rank{rank}.safetensors"
        tensors = create(path, {name: (dtype, target.shape) for name, target in by_name.items()})
        descriptor = files.enter_context(path.open("r+b", buffering=0)).fileno()
        for name, target in by_name.items():
            row = 0
            for part in target.slices:
                destinations[part.source].append(Destination(part, descriptor, tensors[name], row))
                row += len(part.rows)
    return destinations


def copy_tensor(
    name: str, source: StoredTensor, destinations: list[Destination], on_read: OnRead | None
) -> None:
    """Copy one source tensor to all its destinations, in blocks of rows of about BLOCK_BYTES.

    Raises CheckpointError for a value that float16 cannot hold, and when the file became shorter.
    """
    dtype = TORCH_DTYPES[destinations[0].tensor.dtype]
    for first_row, block in read_blocks(source):
        converted = block.to(dtype)
        if dtype == torch.float16 and converted.isinf().any() and not block.isinf().any():
            raise CheckpointError(
                f"'{name}' has values beyond float16's largest, 65504; the largest here is {block.abs().max():g}. "
                f"Use --dtype bfloat16."
            )
        for destination in destinations:
            write_block(converted, first_row, destination)
        if on_read:
            on_read(block.nbytes)


def read_blocks(source: StoredTensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, block [rows, columns]) for each block of a matrix; a vector counts as a matrix of one column.

    All blocks share one buffer: a block is valid until the next one is read. Raises CheckpointError when the file
    became shorter.
    """
    num_rows, columns = source.shape[0], prod(source.shape[1:])
    row_bytes = columns * DTYPE_BYTES[source.dtype]
    block_rows = max(1, BLOCK_BYTES // row_bytes)
    buffer = memoryview(bytearray(min(block_rows, num_rows) * row_bytes))
    with source.file.open("rb", buffering=0) as file:
        for first_row in range(0, num_rows, block_rows):
            rows = min(block_rows, num_rows - first_row)
            raw = buffer[: rows * row_bytes]
            file.seek(source.offset + first_row * row_bytes)
            if file.readinto(raw) != len(raw):
                raise CheckpointError(f"{source.file} became shorter while it was read. Convert again.")
            yield first_row, torch.frombuffer(raw, dtype=TORCH_DTYPES[source.dtype]).reshape(rows, columns)


def write_block(block: torch.Tensor, first_row: int, destination: Destination) -> None:
    """Write the part of `block` [rows, columns] that belongs to the destination's slice.

    The block begins at row `first_row` of the source tensor.
    """
    rows, columns = destination.source_slice.rows, destination.source_slice.columns
    begin, end = max(rows.start, first_row), min(rows.stop, first_row + len(block))
    if begin >= end:
        return
    values = block[begin - first_row : end - first_row]
    if columns is not None:
        values = values[:, columns.start : columns.stop].contiguous()
    row = destination.row + begin - rows.start
    offset = destination.tensor.offset + row * values.shape[1] * values.element_size()
    raw = values.view(torch.uint8).numpy().data.cast("B")
    while raw:
        written = os.pwrite(destination.descriptor, raw, offset)
        raw, offset = raw[written:], offset + written
