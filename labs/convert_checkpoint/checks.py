"""The exercises of lesson 04."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from engineroom.checkpoint.config import ModelConfig
from labs.kit.check import Mistake, exercise, require, require_function, require_number

HEADS, KV, SIZE, HIDDEN = 8, 4, 2, 6
TOY = ModelConfig("LlamaForCausalLM", HIDDEN, 3, HEADS, KV, SIZE, 12, 10)
Q = torch.arange(HEADS * SIZE * HIDDEN, dtype=torch.float32).reshape(-1, HIDDEN)
K, V = (1000.0 * n + Q[: KV * SIZE] for n in (1, 2))


def same(got: object, want: torch.Tensor) -> bool:
    return isinstance(got, torch.Tensor) and got.shape == want.shape and torch.equal(got.float(), want)


def is_tensor(got: object, name: str) -> None:
    require(
        got is not ... and got is not None, f"`{name}` gives nothing back yet. Does it `return` the tensor?"
    )
    require(
        isinstance(got, torch.Tensor), f"`{name}` gave a {type(got).__name__}; I expected a torch.Tensor."
    )


def group_by_group() -> torch.Tensor:
    """The fused order of other frameworks: each KV head after the query heads that share it."""
    q, k, v = Q.unflatten(0, (KV, -1)), K.unflatten(0, (KV, -1)), V.unflatten(0, (KV, -1))
    return torch.cat([q, k, v], 1).flatten(0, 1)


@exercise("04.fuse", version=1, title="Fuse q, k and v", minutes=4)
def fuse(fuse_qkv: Callable[..., torch.Tensor]) -> None:
    require_function(fuse_qkv, "fuse_qkv")
    got = fuse_qkv(Q, K, V)
    is_tensor(got, "fuse_qkv")
    require(not same(got, torch.cat([K, Q, V])), "k comes before q. The order is q, k, v, from the top.")
    require(
        not same(got, torch.cat([Q, V, K])), "k and v changed places. The order is q, k, v, from the top."
    )
    require(
        not same(got, group_by_group()),
        "That is the order of other frameworks: group by group. TensorRT-LLM takes all of q, then all of k, then v.",
    )
    rows = len(Q) + 2 * len(K)
    require(
        got.shape == (rows, HIDDEN),
        f"The shape is {list(got.shape)}; q {list(Q.shape)}, k and v {list(K.shape)} make [{rows}, {HIDDEN}]. Rows are "
        f"outputs: stack them on dimension 0.",
    )
    require(
        same(got, torch.cat([Q, K, V])), "The shape is right, the rows are not: q on top, then k, then v."
    )


@exercise("04.shard", version=1, title="Cut the fused tensor for tensor parallelism", minutes=8)
def shard(shard_qkv: Callable[..., torch.Tensor]) -> None:
    require_function(shard_qkv, "shard_qkv")
    for tp in (2, 4):
        got = [shard_qkv(Q, K, V, tp, rank) for rank in range(tp)]
        for one in got:
            is_tensor(one, "shard_qkv")
        _shard_mistakes(got, tp)
    require(
        same(shard_qkv(Q, K, V, 1, 0), torch.cat([Q, K, V])), "With tp_size 1 it should be the fused tensor."
    )


def _shard_mistakes(got: list[torch.Tensor], tp: int) -> None:
    want = [torch.cat([x.chunk(tp)[rank] for x in (Q, K, V)]) for rank in range(tp)]
    fused = torch.cat([Q, K, V])
    require(
        not all(map(same, got, fused.chunk(tp))),
        "You fused first and cut then: rank 0 got query rows only. The shapes fit, the heads do not, and nothing will "
        "complain.",
        "Cut q, k and v each for itself; then fuse what belongs to this rank.",
    )
    require(not all(same(one, want[0]) for one in got), "Every rank got the share of rank 0. Use `tp_rank`.")
    require(
        not all(same(one, torch.cat([Q.chunk(tp)[r], K, V])) for r, one in enumerate(got)),
        "k and v are whole on every rank. There are KV heads enough for each rank to have its own: cut them too.",
    )
    require(
        not all(len(one) == len(fused) for one in got),
        f"Each rank has all {len(fused)} rows. Column parallel means: cut the outputs, and those are rows here.",
    )
    require(
        not all(map(same, got, [torch.cat([x[rank::tp] for x in (Q, K, V)]) for rank in range(tp)])),
        "You dealt the rows out like cards, and tore heads apart. Each rank gets neighbouring rows: whole heads.",
    )
    for rank, (one, right) in enumerate(zip(got, want, strict=True)):
        require(
            same(one, right),
            f"tp_size {tp}, rank {rank}: I expected {list(right.shape)}: this rank's part of q, then of k, then of v; "
            f"got {list(one.shape)}.",
        )


@exercise("04.copies", version=1, title="What copied KV heads cost", minutes=6)
def copies(
    extra_bytes: Callable[[ModelConfig, int], float], model: ModelConfig, tp_size: int, measured: int
) -> None:
    require_function(extra_bytes, "extra_bytes")
    one_head = TOY.head_size * TOY.hidden_size
    right = 2 * (16 - KV) * one_head * TOY.num_hidden_layers * 2
    got: Any = extra_bytes(TOY, 16)
    quarter, with_originals = right / 4, right * 16 // (16 - KV)
    mistakes = {
        right / 2: "Half of it is missing. k and v are both copied, and a bfloat16 value takes two bytes.",
        quarter: "A factor of four is missing: k and v are both copied, and a bfloat16 value takes two bytes.",
        right / TOY.num_hidden_layers: "That is one layer. Every layer has its KV heads.",
        with_originals: "You counted the originals as extra too: of 16 heads, only the copies cost more.",
        right / TOY.hidden_size: "A head is a matrix: head_size rows of hidden_size columns.",
    }
    require_number(got, mistakes)
    require(
        got == right,
        f"For {KV} KV heads of {TOY.head_size} × {TOY.hidden_size}, {TOY.num_hidden_layers} layers, on 16 ranks I get "
        f"{right:,} bytes, you {got:,}. Copies: one KV head a rank, less the {KV} that had to be stored anyway.",
    )
    require(
        extra_bytes(TOY, 2) == 0, "With no more ranks than KV heads nothing is copied: the answer is 0 then."
    )
    if (prediction := extra_bytes(model, tp_size)) != measured:
        raise Mistake(
            f"Your formula says {prediction:,} bytes for the real model, the files say {measured:,}."
        )


@exercise("04.names", version=1, title="The crossed names", minutes=3)
def names(fc: str, gate: str) -> None:
    for name, value in (("fc", fc), ("gate", gate)):
        require(isinstance(value, str), f"`{name}` should be a name in quotes, such as 'down_proj'.")
        require(value != "down_proj", f"`{name}` is not down_proj: look at the shapes.")
        require(
            value in ("gate_proj", "up_proj"),
            f"`{name}` is {value!r}; write 'gate_proj' or 'up_proj', nothing more.",
        )
    require(fc != gate, "Two tensors, two names: they cannot be the same one.")
    require(
        (fc, gate) == ("gate_proj", "up_proj"),
        "That is what the names suggest. Compare the tensors with torch.equal and believe those.",
    )
