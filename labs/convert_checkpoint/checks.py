"""The exercises of lesson 04."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engineroom.checkpoint.config import ModelConfig
from labs.kit.check import Mistake, exercise, require, require_function, require_number

HEADS, KV_HEADS, HEAD_SIZE, HIDDEN = 8, 4, 2, 6
TOY = ModelConfig("LlamaForCausalLM", HIDDEN, 3, HEADS, KV_HEADS, HEAD_SIZE, 12, 10)
Q = torch.arange(HEADS * HEAD_SIZE * HIDDEN, dtype=torch.float32).reshape(
    -1, HIDDEN
)  # [heads * head_size, hidden]
K, V = (
    1000.0 + Q[: KV_HEADS * HEAD_SIZE],
    2000.0 + Q[: KV_HEADS * HEAD_SIZE],
)  # [kv_heads * head_size, hidden]


def same(answer: torch.Tensor, expected: torch.Tensor) -> bool:
    return answer.shape == expected.shape and torch.equal(answer.float(), expected)


def all_same(answers: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    return all(same(answer, tensor) for answer, tensor in zip(answers, expected, strict=True))


def require_tensor(answer: object, name: str) -> None:
    if answer is ... or answer is None:
        raise Mistake(f"`{name}` returns nothing yet. Does it `return` the tensor?")
    if not isinstance(answer, torch.Tensor):
        raise Mistake(f"`{name}` gave a {type(answer).__name__}; I expected a torch.Tensor.")


def group_by_group() -> torch.Tensor:
    """The fused order of other frameworks: each KV head follows the query heads that share it."""
    q, k, v = (x.unflatten(0, (KV_HEADS, -1)) for x in (Q, K, V))
    return torch.cat([q, k, v], 1).flatten(0, 1)


@exercise("04.fuse", version=1, title="Fuse q, k and v", minutes=4)
def fuse(fuse_qkv: Callable[..., torch.Tensor]) -> None:
    require_function(fuse_qkv, "fuse_qkv")
    fused = fuse_qkv(Q, K, V)
    require_tensor(fused, "fuse_qkv")
    if same(fused, torch.cat([K, Q, V])):
        raise Mistake("k comes before q. The order is q, k, v, from the top.")
    if same(fused, torch.cat([Q, V, K])):
        raise Mistake("k and v are swapped. The order is q, k, v, from the top.")
    if same(fused, group_by_group()):
        raise Mistake(
            "That is the order of other frameworks: group by group. TensorRT-LLM takes all of q, then all of k, then "
            "all of v."
        )
    rows = len(Q) + 2 * len(K)
    if fused.shape != (rows, HIDDEN):
        raise Mistake(
            f"The shape is {list(fused.shape)}; q {list(Q.shape)}, k and v {list(K.shape)} make [{rows}, {HIDDEN}]. "
            f"Rows are outputs: stack them on dimension 0."
        )
    require(
        same(fused, torch.cat([Q, K, V])), "The shape is right, the rows are not: q on top, then k, then v."
    )


@exercise("04.shard", version=1, title="Cut the fused tensor for tensor parallelism", minutes=8)
def shard(shard_qkv: Callable[..., torch.Tensor]) -> None:
    require_function(shard_qkv, "shard_qkv")
    for tp_size in (2, 4):
        shards = [shard_qkv(Q, K, V, tp_size, rank) for rank in range(tp_size)]
        for tensor in shards:
            require_tensor(tensor, "shard_qkv")
        _check_shards(shards, tp_size)
    require(
        same(shard_qkv(Q, K, V, 1, 0), torch.cat([Q, K, V])), "With tp_size 1 it should be the fused tensor."
    )


def _check_shards(shards: list[torch.Tensor], tp_size: int) -> None:
    """`shards`: what the learner's function gave for each rank."""
    ranks = range(tp_size)
    expected = [torch.cat([x.chunk(tp_size)[rank] for x in (Q, K, V)]) for rank in ranks]
    fused = torch.cat([Q, K, V])
    if all_same(shards, fused.chunk(tp_size)):
        raise Mistake(
            "You fused before you sharded, so rank 0 got query rows only. The shapes fit, the heads do not, and "
            "nothing will complain.",
            "Shard each of q, k and v first. Then fuse what belongs to this rank.",
        )
    if all_same(shards, [expected[0]] * tp_size):
        raise Mistake("Every rank got the share of rank 0. Use `tp_rank`.")
    if all_same(shards, [torch.cat([Q.chunk(tp_size)[rank], K, V]) for rank in ranks]):
        raise Mistake(
            "k and v are whole on every rank. There are enough KV heads for each rank to have its own: shard them too."
        )
    if all(len(tensor) == len(fused) for tensor in shards):
        raise Mistake(
            f"Each rank has all {len(fused)} rows. Column parallel means: shard the outputs, and those are rows here."
        )
    if all_same(shards, [torch.cat([x[rank::tp_size] for x in (Q, K, V)]) for rank in ranks]):
        raise Mistake(
            "You dealt the rows out like cards and tore heads apart. Each rank gets contiguous rows: whole heads."
        )
    for rank, (answer, tensor) in enumerate(zip(shards, expected, strict=True)):
        if not same(answer, tensor):
            raise Mistake(
                f"tp_size {tp_size}, rank {rank}: I expected {list(tensor.shape)}: this rank's part of q, then of k, "
                f"then of v; got {list(answer.shape)}."
            )


@exercise("04.copies", version=1, title="What copied KV heads cost", minutes=6)
def copies(
    extra_bytes: Callable[[ModelConfig, int], float], model: ModelConfig, tp_size: int, measured: int
) -> None:
    require_function(extra_bytes, "extra_bytes")
    ranks, head_values = 16, TOY.head_size * TOY.hidden_size
    expected = 2 * (ranks - KV_HEADS) * head_values * TOY.num_hidden_layers * 2
    with_originals = expected * ranks // (ranks - KV_HEADS)
    mistakes = {
        expected / 2: "Half of it is missing. k and v are both copied, and a bfloat16 value takes two bytes.",
        expected
        / 4: "A factor of four is missing: k and v are both copied, and a bfloat16 value takes two bytes.",
        expected / TOY.num_hidden_layers: "That is one layer. Every layer has its KV heads.",
        with_originals: "You counted the originals as extra too: of 16 heads, only the copies cost more.",
        expected / TOY.hidden_size: "A head is a matrix: head_size rows of hidden_size columns.",
    }
    answer = extra_bytes(TOY, ranks)
    require_number(answer, mistakes)
    if answer != expected:
        raise Mistake(
            f"For {KV_HEADS} KV heads of {TOY.head_size} × {TOY.hidden_size}, {TOY.num_hidden_layers} layers, on "
            f"{ranks} ranks I get {expected:,} bytes, you {answer:,}. Copies: one KV head a rank, less the {KV_HEADS} "
            f"that had to be stored anyway."
        )
    if extra_bytes(TOY, 2) != 0:
        raise Mistake("With no more ranks than KV heads nothing is copied: the answer is 0 then.")
    prediction = extra_bytes(model, tp_size)
    if prediction != measured:
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
