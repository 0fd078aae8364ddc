"""Who holds what: ranks, tensor parallel and pipeline parallel, by TensorRT-LLM's rules (tensorrt_llm/mapping.py)."""

from __future__ import annotations

from dataclasses import dataclass

from engineroom.checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class Mapping:
    """`tp_size` ranks share each layer, `pp_size` stages share the layers; rank = pp_rank * tp_size + tp_rank."""

    tp_size: int = 1
    pp_size: int = 1

    def __post_init__(self) -> None:
        for name in ("tp_size", "pp_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise CheckpointError(f"--{name} {getattr(self, name)!r}: expected a whole number from 1 up.")

    @property
    def world_size(self) -> int:
        return self.tp_size * self.pp_size

    def tp_rank(self, rank: int) -> int:
        return rank % self.tp_size

    def pp_rank(self, rank: int) -> int:
        return rank // self.tp_size

    def pp_layers(self, rank: int, num_layers: int) -> range:
        """The layers of this rank's stage; of an uneven number the first stages hold one more (torch.tensor_split)."""
        each, extra = divmod(num_layers, self.pp_size)
        stage = self.pp_rank(rank)
        first = stage * each + min(stage, extra)
        return range(first, first + each + (stage < extra))

    def is_first_pp_rank(self, rank: int) -> bool:
        return self.pp_rank(rank) == 0

    def is_last_pp_rank(self, rank: int) -> bool:
        return self.pp_rank(rank) == self.pp_size - 1
