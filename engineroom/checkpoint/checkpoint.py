"""Open and check a TensorRT-LLM checkpoint, and join its ranks back into Hugging Face's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.config import ModelConfig, from_trtllm
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.mapping import Sharding
from engineroom.checkpoint.plan import SourceSlice, plan, source_shapes
from engineroom.checkpoint.source import read_json
from engineroom.checkpoint.tensorfile import StoredTensor, load, read_header
from engineroom.kit.output import is_incomplete


@dataclass(frozen=True)
class Checkpoint:
    """`config` is config.json as it stands; `ranks[rank]` has the tensors of that rank's file, by name."""

    directory: Path
    config: dict[str, Any]
    ranks: list[dict[str, StoredTensor]]

    @property
    def model(self) -> ModelConfig:
        return from_trtllm(self.config, self.directory / "config.json")

    @property
    def sharding(self) -> Sharding:
        return Sharding.from_trtllm(self.config)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of all ranks."""
        return sum(tensor.nbytes for tensors in self.ranks for tensor in tensors.values())

    def tensor(self, rank: int, name: str) -> torch.Tensor:
        """One tensor, read from disk. Raises CheckpointError when the rank does not hold it."""
        if name not in self.ranks[rank]:
            raise CheckpointError(
                f"rank {rank} of {self.directory} holds no '{name}'. `inspect` lists what it holds."
            )
        return load(self.ranks[rank][name])

    def load(self, rank: int) -> dict[str, torch.Tensor]:
        """All tensors of one rank, by name, read from disk."""
        return {name: load(tensor) for name, tensor in self.ranks[rank].items()}


def open_checkpoint(directory: str | Path) -> Checkpoint:
    """Open a checkpoint folder. Every rank file must exist and be complete.

    Raises CheckpointError for a folder that is not a checkpoint, is incomplete, or is damaged.
    """
    directory = Path(directory)
    if is_incomplete(directory):
        raise CheckpointError(f"{directory} was left by an interrupted conversion. Convert again.")
    config = read_json(directory / "config.json", "Expected a checkpoint: config.json, rank*.safetensors.")
    if "architecture" not in config:
        raise CheckpointError(
            f"{directory / 'config.json'} has no 'architecture': it is not a TensorRT-LLM checkpoint."
        )
    world_size = Sharding.from_trtllm(config).mapping.world_size
    files = [directory / f"rank{rank}.safetensors" for rank in range(world_size)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{directory} is incomplete: {', '.join(missing)} missing. Convert again.")
    return Checkpoint(directory, config, [read_header(file) for file in files])


def join(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The Hugging Face tensors by name, put together from the ranks, in the checkpoint's dtype.

    Raises CheckpointError when a tensor is missing or has the wrong shape, or when two copies of the same rows (KV
    heads, norms, tied embeddings) differ.
    """
    shapes = source_shapes(checkpoint.model)
    joined: dict[str, torch.Tensor] = {}
    filled: dict[str, torch.Tensor] = {}  # bool, with the shapes of `joined`: which values are known
    for target in plan(checkpoint.model, checkpoint.sharding):
        tensor, row = checkpoint.tensor(target.rank, target.name), 0
        if tuple(tensor.shape) != target.shape:
            raise CheckpointError(
                f"rank {target.rank}: '{target.name}' is {list(tensor.shape)}; config.json implies "
                f"{list(target.shape)}."
            )
        for part in target.slices:
            if part.source not in joined:
                joined[part.source] = torch.zeros(shapes[part.source], dtype=tensor.dtype)
                filled[part.source] = torch.zeros(shapes[part.source], dtype=torch.bool)
            values = tensor[row : row + len(part.rows)]
            row += len(part.rows)
            if not _fill(joined[part.source], filled[part.source], part, values):
                raise CheckpointError(
                    f"rank {target.rank}: '{target.name}' differs from a copy of {part.source}."
                )
    return joined


def _fill(tensor: torch.Tensor, filled: torch.Tensor, part: SourceSlice, values: torch.Tensor) -> bool:
    """Write `values` [rows, columns] to the rows and columns of `tensor` that `part` names.

    Returns False, and writes nothing, if one of these elements already has a different value.
    """
    rows = slice(part.rows.start, part.rows.stop)
    index = (rows,) if part.columns is None else (rows, slice(part.columns.start, part.columns.stop))
    copies = filled[index]
    if not torch.equal(tensor[index][copies], values[copies]):
        return False
    tensor[index] = values
    filled[index] = True
    return True
