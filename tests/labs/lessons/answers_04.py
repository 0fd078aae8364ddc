"""Lesson 04: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

from typing import Any

import torch

from engineroom.checkpoint import ModelConfig
from labs.convert_checkpoint.checks import TOY, Q, group_by_group


def shard(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tp: int, rank: int) -> torch.Tensor:
    return torch.cat([x.chunk(tp)[rank] for x in (q, k, v)])


def copies(model: ModelConfig, tp: int, min_heads: int = 0) -> int:
    heads = max(min_heads, tp - model.num_key_value_heads)
    return 2 * heads * model.head_size * model.hidden_size * model.num_hidden_layers * 2


RIGHT: dict[str, tuple[Any, ...]] = {
    "04.fuse": (lambda q, k, v: torch.cat([q, k, v]),),
    "04.shard": (shard,),
    "04.copies": (copies, TOY, 8, copies(TOY, 8)),
    "04.names": ("gate_proj", "up_proj"),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("04.fuse", (Q,), "Pass it uncalled"),
    ("04.fuse", (lambda q, k, v: None,), "Does it `return`"),
    ("04.fuse", (lambda q, k, v: [q, k, v],), "gave a list"),
    ("04.fuse", (lambda q, k, v: torch.cat([k, q, v]),), "k comes before q"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, v, k]),), "k and v are swapped"),
    ("04.fuse", (lambda q, k, v: group_by_group(),), "group by group"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k]),), "stack them on dimension 0"),
    ("04.fuse", (lambda q, k, v: torch.cat([v, k, q]),), "q on top"),
    ("04.shard", (Q,), "Pass it uncalled"),
    ("04.shard", (lambda q, k, v, tp, r: ...,), "returns nothing yet"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k, v]).chunk(tp)[r],), "fused before you sharded"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, tp, 0),), "Use `tp_rank`"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q.chunk(tp)[r], k, v]),), "k and v are whole"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k, v]).chunk(tp, 1)[r],), "has all 32 rows"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([x[r::tp] for x in (q, k, v)]),), "like cards"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, v, k, tp, r),), "part of q, then of k"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, max(tp, 2), r),), "With tp_size 1"),
    ("04.copies", (100, TOY, 8, 0), "Pass it uncalled"),
    ("04.copies", (lambda model, tp: None, TOY, 8, 0), "not a number"),
    ("04.copies", (lambda model, tp: copies(model, tp) // 2, TOY, 8, 0), "Half of it"),
    ("04.copies", (lambda model, tp: copies(model, tp) // 4, TOY, 8, 0), "factor of four"),
    ("04.copies", (lambda model, tp: copies(model, tp) // model.num_hidden_layers, TOY, 8, 0), "one layer"),
    ("04.copies", (lambda model, tp: copies(model, tp) * 16 // 12, TOY, 8, 0), "originals"),
    ("04.copies", (lambda model, tp: copies(model, tp) // model.hidden_size, TOY, 8, 0), "head is a matrix"),
    ("04.copies", (lambda model, tp: 5, TOY, 8, 0), "Copies: one KV head a rank"),
    ("04.copies", (lambda model, tp: abs(copies(model, tp, min_heads=-99)), TOY, 8, 0), "the answer is 0"),
    ("04.copies", (copies, TOY, 8, 7), "the files say 7"),
    ("04.names", (..., "up_proj"), "name in quotes"),
    ("04.names", ("gate_proj", "down_proj"), "look at the shapes"),
    ("04.names", ("mlp.gate_proj", "up_proj"), "nothing more"),
    ("04.names", ("up_proj", "up_proj"), "cannot be the same"),
    ("04.names", ("up_proj", "gate_proj"), "believe those"),
]
