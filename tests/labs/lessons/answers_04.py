"""Lesson 04: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from engineroom.checkpoint import ModelConfig
from labs.convert_checkpoint.checks import TOY
from labs.convert_checkpoint.projections import by_group

Weight = torch.Tensor


def fuse_by_rows(q: Weight, k: Weight, v: Weight) -> Weight:
    return torch.stack([row for weight in (q, k, v) for row in weight])


def fuse_into_empty(q: Weight, k: Weight, v: Weight) -> Weight:
    fused = q.new_empty(len(q) + len(k) + len(v), q.shape[1])
    fused[: len(q)], fused[len(q) : -len(v)], fused[-len(v) :] = q, k, v
    return fused


def fuse_in_float32(q: Weight, k: Weight, v: Weight) -> Weight:
    fused = torch.empty(len(q) + len(k) + len(v), q.shape[1])
    torch.cat([q, k, v], out=fused)
    return fused


def repeat_kv(q: Weight, k: Weight, v: Weight) -> Weight:
    return torch.cat([q, *(torch.cat([x] * (len(q) // len(x))) for x in (k, v))])


def repeat_each_kv_head(q: Weight, k: Weight, v: Weight) -> Weight:
    """For the toys: the head size is the number of rows that divides both."""
    head_size = {12: 3, 16: 2, 18: 3}[len(q)]
    kv_heads = len(k) // head_size
    repeats = len(q) // len(k)
    copies = [
        x.unflatten(0, (kv_heads, head_size)).repeat_interleave(repeats, 0).flatten(0, 1) for x in (k, v)
    ]
    return torch.cat([q, *copies])


def group_by_group(q: Weight, k: Weight, v: Weight) -> Weight:
    return by_group(q, k, v, {12: 4, 16: 4, 18: 1}[len(q)])


def shard(q: Weight, k: Weight, v: Weight, tp: int, rank: int) -> Weight:
    return torch.cat([x.chunk(tp)[rank] for x in (q, k, v)])


def shard_by_slices(q: Weight, k: Weight, v: Weight, tp_size: int, tp_rank: int) -> Weight:
    parts = []
    for weight in (q, k, v):
        rows = weight.shape[0] // tp_size
        parts.append(weight[tp_rank * rows : (tp_rank + 1) * rows])
    return torch.vstack(parts)


def shard_by_view(q: Weight, k: Weight, v: Weight, tp_size: int, tp_rank: int) -> Weight:
    return torch.concat([x.view(tp_size, -1, x.shape[1])[tp_rank] for x in (q, k, v)], dim=0)


def shard_late_rows(q: Weight, k: Weight, v: Weight, tp: int, rank: int) -> Weight:
    """Each part begins one row late."""
    return torch.cat([x.roll(-1, 0).chunk(tp)[rank] for x in (q, k, v)])


def shard_heads_in_turn(q: Weight, k: Weight, v: Weight, tp: int, rank: int) -> Weight:
    head_size = {16: 2, 24: 4, 12: 3}[len(q)]
    return torch.cat([x.unflatten(0, (-1, head_size))[rank::tp].flatten(0, 1) for x in (q, k, v)])


def shard_groups(q: Weight, k: Weight, v: Weight, tp: int, rank: int) -> Weight:
    head_size = {16: 2, 24: 4, 12: 3}[len(q)]
    return by_group(*(x.chunk(tp)[rank] for x in (q, k, v)), len(k) // head_size // tp)


def copies(model: ModelConfig, tp: int, min_heads: int = 0) -> int:
    heads = max(min_heads, tp - model.num_key_value_heads)
    return 2 * heads * model.head_size * model.hidden_size * model.num_hidden_layers * 2


def copies_with_if(model: ModelConfig, tp_size: int) -> int:
    if tp_size <= model.num_key_value_heads:
        return 0
    matrix = model.head_size * model.hidden_size * 2
    total = sum(2 * tp_size * matrix for _ in range(model.num_hidden_layers))
    return total - sum(2 * model.num_key_value_heads * matrix for _ in range(model.num_hidden_layers))


def copies_of(tp: int) -> int:
    """Forgets k or v, layers and dtype: the copied heads alone."""
    return max(0, tp - TOY.num_key_value_heads)


REAL = (TOY, 8, copies(TOY, 8))

RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "04.fuse": [
        (lambda q, k, v: torch.cat([q, k, v]),),
        (lambda q, k, v: torch.vstack((q, k, v)),),
        (lambda *weights: torch.concatenate(weights, dim=0),),
        (fuse_by_rows,),
        (fuse_into_empty,),
        (lambda q, k, v: torch.nn.Parameter(torch.cat([q, k, v])),),
    ],
    "04.shard": [
        (shard,),
        (shard_by_slices,),
        (shard_by_view,),
        (lambda q, k, v, n, r: torch.cat([x.tensor_split(n)[r] for x in (q, k, v)]),),
        (lambda q, k, v, n, r: torch.cat([torch.split(x, len(x) // n)[r].clone() for x in (q, k, v)]),),
    ],
    "04.copies": [
        (copies, *REAL),
        (copies_with_if, *REAL),
        (lambda model, tp: float(copies(model, tp)), *REAL),
        (lambda model, tp: np.int64(copies(model, tp)), *REAL),
        (lambda model, tp: torch.tensor(copies(model, tp)), *REAL),
        (lambda model, tp: Fraction(copies(model, tp)), *REAL),
    ],
    "04.names": [
        ("gate_proj", "up_proj"),
        ("gate_proj.weight", "up_proj.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        (np.str_("gate_proj"), np.str_("up_proj")),
        (" gate_proj", "mlp.up_proj"),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("04.fuse", (TOY,), "Pass it uncalled"),
    ("04.fuse", (lambda q, k, v: None,), "Does it `return`"),
    ("04.fuse", (lambda q, k, v: [q, k, v],), "gave a list"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k, v]).float().numpy(),), "NumPy has no bfloat16"),
    ("04.fuse", (lambda q, k, v: torch.cat([k, q, v]),), "k comes before q"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, v, k]),), "k and v are swapped"),
    ("04.fuse", (lambda q, k, v: torch.cat([v, k, q]),), "upside down"),
    ("04.fuse", (group_by_group,), "group by group"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k]),), "v is missing"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, v]),), "k is missing"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k, v], dim=1),), "side by side"),
    ("04.fuse", (lambda q, k, v: torch.stack([q, k, v]),), "makes a new dimension"),
    ("04.fuse", (lambda q, k, v: q + k + v,), "You added the three"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k, v]).T,), "transposed"),
    ("04.fuse", (repeat_each_kv_head,), "repeated each KV head"),
    ("04.fuse", (repeat_kv,), "stack them on dimension 0"),
    ("04.fuse", (fuse_in_float32,), "your tensor is torch.float32"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k.flip(0), v]),), "row 12 should be row 0 of k, yours is row 11 of k"),
    ("04.fuse", (lambda q, k, v: torch.cat([q, k, 2 * v]),), "yours is no row of q, k or v"),
    ("04.shard", (TOY,), "Pass it uncalled"),
    ("04.shard", (lambda q, k, v, tp, r: ...,), "not written yet"),
    ("04.shard", (lambda q, k, v, tp, r: print(end=""),), "returns nothing yet"),
    ("04.shard", (lambda q, k, v, tp, r: tuple(x.chunk(tp)[r] for x in (q, k, v)),), "gave a tuple"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k, v]).chunk(tp)[r],), "fused before you sharded"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, tp, 0),), "Use `tp_rank`"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, tp, tp - 1 - r),), "counted the ranks from the end"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, tp, r - 1),), "Ranks count from 0"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k, v]),), "nothing is sharded yet"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q.chunk(tp)[r], k, v]),), "k and v are whole"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k.chunk(tp)[r], v.chunk(tp)[r]]),), "q is whole"),
    ("04.shard", (lambda q, k, v, tp, r: q.chunk(tp)[r],), "q alone"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([q, k, v]).chunk(tp, 1)[r],), "has all 32 rows"),
    ("04.shard", (lambda q, k, v, tp, r: torch.cat([x[r::tp] for x in (q, k, v)]),), "dealt the rows"),
    ("04.shard", (shard_heads_in_turn,), "dealt the heads"),
    ("04.shard", (shard_groups,), "in the order of other frameworks"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, v, k, tp, r),), "k and v are swapped"),
    ("04.shard", (lambda q, k, v, tp, r: shard(k, q, v, tp, r),), "k comes before q"),
    ("04.shard", (shard_late_rows,), "row 0 should be row 0 of q, yours is row 1 of q"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, 2, min(r, 1)),), "I expected [8, 6]"),
    ("04.shard", (lambda q, k, v, tp, r: shard(q, k, v, max(tp, 2), r),), "With tp_size 1"),
    ("04.copies", (100, *REAL), "Pass it uncalled"),
    ("04.copies", (lambda model, tp: None, *REAL), "not a number"),
    ("04.copies", (lambda model, tp: copies(model, tp) // 2, *REAL), "Half of it"),
    ("04.copies", (lambda model, tp: copies(model, tp) // 4, *REAL), "factor of four"),
    ("04.copies", (lambda model, tp: copies(model, tp) * 2, *REAL), "twice as much"),
    ("04.copies", (lambda model, tp: copies(model, tp) * 8, *REAL), "bits"),
    ("04.copies", (lambda model, tp: copies(model, tp) / 1e6, *REAL), "megabytes"),
    ("04.copies", (lambda model, tp: copies(model, tp) // model.num_hidden_layers, *REAL), "one layer"),
    ("04.copies", (lambda model, tp: copies(model, tp) // model.hidden_size, *REAL), "`hidden_size` is missing"),
    ("04.copies", (lambda model, tp: copies(model, tp) // model.head_size, *REAL), "`head_size` is missing"),
    ("04.copies", (lambda model, tp: copies(model, tp) / tp, *REAL), "share of one rank"),
    ("04.copies", (lambda model, tp: copies(model, tp, tp) if copies(model, tp) else 0, *REAL), "originals"),
    (
        "04.copies",
        (lambda m, tp: copies(m, tp) // m.num_key_value_heads, *REAL),
        "how often one KV head is copied",
    ),
    (
        "04.copies",
        (lambda m, tp: copies(replace(m, num_key_value_heads=m.num_attention_heads), tp), *REAL),
        "query heads",
    ),
    ("04.copies", (lambda model, tp: 41_580, *REAL), "the same for every input"),
    ("04.copies", (lambda model, tp: copies_of(tp), *REAL), "one KV head a rank"),
    ("04.copies", (lambda model, tp: copies(TOY, tp), *REAL), "one KV head a rank"),
    ("04.copies", (lambda model, tp: -copies(model, tp), *REAL), "sign is reversed"),
    ("04.copies", (lambda model, tp: copies(model, tp, min_heads=-99), *REAL), "less than nothing"),
    ("04.copies", (lambda model, tp: abs(copies(model, tp, min_heads=-99)), *REAL), "the answer is 0 then."),
    ("04.copies", (copies, TOY, 8, 7), "the files say 7"),
    ("04.names", (..., "up_proj"), "not written yet"),
    ("04.names", ("gate_proj", "down_proj"), "look at the shapes"),
    ("04.names", ("gate", "up_proj"), "a name in the rank files"),
    ("04.names", (True, False), "the result of a comparison"),
    ("04.names", (torch.ones(2), "up_proj"), "is a tensor"),
    ("04.names", (["gate_proj"], ["up_proj"]), "name in quotes"),
    ("04.names", ("gate_projection", "up_proj"), "write 'gate_proj' or 'up_proj'"),
    ("04.names", ("up_proj", "up_proj"), "cannot be the same"),
    ("04.names", ("up_proj", "gate_proj"), "believe those"),
]  # fmt: skip
