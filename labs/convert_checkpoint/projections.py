"""Small q, k and v whose values are all different, so that every row of an answer can be traced to its source."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Projections:
    """The sizes of one layer's attention, and the weights of its projections.

    The values are the whole numbers from 0 on. bfloat16 holds them exactly up to 256, so keep the sizes below that.
    """

    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        return f"{self.heads} query heads and {self.kv_heads} KV heads of {self.head_size} rows"

    @property
    def q(self) -> torch.Tensor:
        """[heads * head_size, hidden]"""
        return self._weight(self.heads, 0)

    @property
    def k(self) -> torch.Tensor:
        """[kv_heads * head_size, hidden]"""
        return self._weight(self.kv_heads, self.q.numel())

    @property
    def v(self) -> torch.Tensor:
        """[kv_heads * head_size, hidden]"""
        return self._weight(self.kv_heads, self.q.numel() + self.k.numel())

    @property
    def qkv(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.q, self.k, self.v

    def source(self, row: torch.Tensor) -> str:
        """Which row of q, k or v this is. `row`: [hidden]"""
        for name, weight in zip("qkv", self.qkv, strict=True):
            for index, candidate in enumerate(weight):
                if row.shape == candidate.shape and torch.equal(row.to(candidate), candidate):
                    return f"row {index} of {name}"
        return "no row of q, k or v"

    def _weight(self, heads: int, first: int) -> torch.Tensor:
        size = heads * self.head_size * self.hidden
        return torch.arange(first, first + size, dtype=self.dtype).reshape(-1, self.hidden)


def same(answer: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether both have the same shape and the same numbers, in whatever dtype."""
    return answer.shape == expected.shape and torch.equal(answer.double(), expected.double())


def by_group(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: int) -> torch.Tensor:
    """The fused order of other frameworks: each KV head follows the query heads that share it."""
    return torch.cat([x.unflatten(0, (groups, -1)) for x in (q, k, v)], 1).flatten(0, 1)
