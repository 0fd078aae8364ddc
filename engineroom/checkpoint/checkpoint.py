"""Reading a TensorRT-LLM checkpoint: what is in it, is it whole, and back to Hugging Face's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.config import ModelConfig, from_trtllm
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.mapping import Mapping
from engineroom.checkpoint.plan import Layout, plan, sources
from engineroom.checkpoint.source import read_json
from engineroom.checkpoint.tensorfile import Stored, load, read_header
from engineroom.kit.output import SUFFIX


@dataclass(frozen=True)
class Checkpoint:
    """`ranks[r]` maps the tensor names of rank r to their places on disk; `config` is config.json as it stands."""

    directory: Path
    config: dict[str, Any]
    ranks: list[dict[str, Stored]]

    @property
    def model(self) -> ModelConfig:
        return from_trtllm(self.config, self.directory / "config.json")

    @property
    def layout(self) -> Layout:
        sharding = int(self.config.get("embedding_sharding_dim", 0))
        return Layout(_mapping(self.config), bool(self.config.get("use_parallel_embedding")), sharding)

    def tensor(self, rank: int, name: str) -> torch.Tensor:
        """One tensor, read from disk. Raises CheckpointError when the rank does not hold it."""
        if name not in self.ranks[rank]:
            raise CheckpointError(
                f"rank {rank} of {self.directory} holds no '{name}'. `inspect` lists what it holds."
            )
        return load(self.ranks[rank][name])

    def load(self, rank: int) -> dict[str, torch.Tensor]:
        """All tensors of a rank."""
        return {name: load(stored) for name, stored in self.ranks[rank].items()}


def open_checkpoint(directory: str | Path) -> Checkpoint:
    """Open a checkpoint folder; every rank file must be there and whole.

    Raises CheckpointError for a folder that is none, is incomplete, or is damaged.
    """
    directory = Path(directory)
    if directory.name.endswith(SUFFIX):
        raise CheckpointError(f"{directory} is what an interrupted conversion left. Convert again.")
    config = read_json(directory / "config.json", "Expected a checkpoint: config.json, rank*.safetensors.")
    if "architecture" not in config:
        raise CheckpointError(
            f"{directory / 'config.json'} has no 'architecture': it is no TensorRT-LLM checkpoint."
        )
    files = [directory / f"rank{rank}.safetensors" for rank in range(_mapping(config).world_size)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{directory} is incomplete: {', '.join(missing)} missing. Convert again.")
    return Checkpoint(directory, config, [read_header(file) for file in files])


def _mapping(config: dict[str, Any]) -> Mapping:
    mapping = config.get("mapping") or {}
    return Mapping(mapping.get("tp_size", 1), mapping.get("pp_size", 1))


def join(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The Hugging Face tensors, put together from the ranks, in the checkpoint's dtype.

    Raises CheckpointError when a tensor is missing or misshapen, or when two copies of the same rows (KV heads, norms,
    tied embeddings) differ.
    """
    found: dict[str, torch.Tensor] = {}
    filled: dict[str, torch.Tensor] = {}
    shapes = sources(checkpoint.model)
    for target in plan(checkpoint.model, checkpoint.layout):
        tensor, row = checkpoint.tensor(target.rank, target.name), 0
        if tuple(tensor.shape) != target.shape:
            raise CheckpointError(
                f"rank {target.rank}: '{target.name}' is {list(tensor.shape)}, the config implies {list(target.shape)}."
            )
        for piece in target.pieces:
            if piece.source not in found:
                found[piece.source] = torch.zeros(shapes[piece.source], dtype=tensor.dtype)
                filled[piece.source] = torch.zeros(shapes[piece.source], dtype=torch.bool)
            part, row = tensor[row : row + len(piece.rows)], row + len(piece.rows)
            where = _slices(piece.rows, piece.columns)
            done = filled[piece.source][where]
            if not torch.equal(found[piece.source][where][done], part[done]):
                raise CheckpointError(
                    f"rank {target.rank}: '{target.name}' differs from a copy of {piece.source}."
                )
            found[piece.source][where] = part
            filled[piece.source][where] = True
    return found


def _slices(rows: range, columns: range | None) -> tuple[slice, ...]:
    cut = (slice(rows.start, rows.stop),)
    return cut if columns is None else (*cut, slice(columns.start, columns.stop))
