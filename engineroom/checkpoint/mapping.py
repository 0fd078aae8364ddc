"""How a model is sharded: tensor and pipeline parallel ranks, by TensorRT-LLM's rules (tensorrt_llm/mapping.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engineroom.checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class Mapping:
    """`pp_size` pipeline stages hold the layers; `tp_size` ranks share each layer. rank = pp_rank * tp_size + tp_rank.

    Raises CheckpointError for a size that is not a whole number from 1 up.
    """

    tp_size: int = 1
    pp_size: int = 1

    def __post_init__(self) -> None:
        for name, size in (("tp_size", self.tp_size), ("pp_size", self.pp_size)):
            if not isinstance(size, int) or size < 1:
                raise CheckpointError(f"--{name} {size!r}: expected a whole number from 1 up.")

    @property
    def world_size(self) -> int:
        return self.tp_size * self.pp_size

    def tp_rank(self, rank: int) -> int:
        return rank % self.tp_size

    def pp_rank(self, rank: int) -> int:
        return rank // self.tp_size

    def pp_layers(self, rank: int, num_layers: int) -> range:
        """The layers of this rank's stage. If they do not divide evenly, the first stages hold one more each.

        This is the split of torch.tensor_split.
        """
        layers_per_stage, remainder = divmod(num_layers, self.pp_size)
        stage = self.pp_rank(rank)
        first = stage * layers_per_stage + min(stage, remainder)
        return range(first, first + layers_per_stage + (stage < remainder))

    def is_first_pp_rank(self, rank: int) -> bool:
        return self.pp_rank(rank) == 0

    def is_last_pp_rank(self, rank: int) -> bool:
        return self.pp_rank(rank) == self.pp_size - 1

    def to_dict(self) -> dict[str, int]:
        """The `mapping` of a checkpoint's config.json, with the keys that every release of TensorRT-LLM accepts."""
        return {
            "world_size": self.world_size,
            "tp_size": self.tp_size,
            "pp_size": self.pp_size,
            "cp_size": 1,
            "gpus_per_node": 8,
        }


@dataclass(frozen=True)
class Sharding:
    """How the weights of a model are distributed: the mapping, and whether and along which dimension the embedding
    table is sharded (0: vocabulary, 1: hidden size).
    """

    mapping: Mapping = field(default_factory=Mapping)
    use_parallel_embedding: bool = False
    embedding_sharding_dim: int = 0

    @classmethod
    def from_trtllm(cls, config: dict[str, Any]) -> Sharding:
        """The sharding that a TensorRT-LLM checkpoint's config.json describes."""
        mapping = config.get("mapping") or {}
        return cls(
            Mapping(mapping.get("tp_size", 1), mapping.get("pp_size", 1)),
            bool(config.get("use_parallel_embedding")),
            int(config.get("embedding_sharding_dim", 0)),
        )
