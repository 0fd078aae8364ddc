"""The exercises of lesson 04."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engineroom.checkpoint.config import ModelConfig
from labs.convert_checkpoint import check_fuse, check_shard
from labs.convert_checkpoint.check_fuse import check_fused, require_tensor
from labs.convert_checkpoint.check_shard import check_shards
from labs.convert_checkpoint.projections import same
from labs.kit.check import Mistake, exercise, require, require_formula, require_function, require_number
from labs.kit.values import plain, shown

# Sizes of which no two have the same ratio: each forgotten factor gives a number of its own.
TOY = ModelConfig("LlamaForCausalLM", 11, 3, 20, 5, 9, 12, 10)
SECOND_TOY = ModelConfig("LlamaForCausalLM", 26, 7, 12, 3, 4, 12, 10)
NAMES = ("gate_proj", "up_proj")


@exercise("04.fuse", version=1, title="Fuse q, k and v", minutes=4)
def fuse(fuse_qkv: Callable[..., object]) -> None:
    require_function(fuse_qkv, "fuse_qkv")
    for case in check_fuse.CASES:
        check_fused(require_tensor(fuse_qkv(*case.qkv), "fuse_qkv"), case)


@exercise("04.shard", version=1, title="Cut the fused tensor for tensor parallelism", minutes=8)
def shard(shard_qkv: Callable[..., object]) -> None:
    require_function(shard_qkv, "shard_qkv")
    for case, tp_sizes in check_shard.CASES:
        for tp_size in tp_sizes:
            answers = [shard_qkv(*case.qkv, tp_size, rank) for rank in range(tp_size)]
            check_shards([require_tensor(answer, "shard_qkv") for answer in answers], case)
        whole = require_tensor(shard_qkv(*case.qkv, 1, 0), "shard_qkv")
        require(same(whole, torch.cat(case.qkv)), "With tp_size 1 it should be the fused tensor.")


def extra_bytes_of_copies(model: ModelConfig, tp_size: int) -> int:
    """Bytes of the KV heads that more ranks than KV heads store beyond the first copy, the answer of 04.copies."""
    num_copies = max(0, tp_size - model.num_key_value_heads)
    return 2 * num_copies * model.head_size * model.hidden_size * model.num_hidden_layers * 2


def _copies_mistakes() -> list[tuple[Callable[[ModelConfig, int], float], str]]:
    right = extra_bytes_of_copies

    def unbounded(model: ModelConfig, tp_size: int) -> int:
        head_bytes = 4 * model.head_size * model.hidden_size * model.num_hidden_layers
        return (tp_size - model.num_key_value_heads) * head_bytes

    def copies_of(num_heads: Callable[[ModelConfig, int], float]) -> Callable[[ModelConfig, int], float]:
        return lambda m, tp: num_heads(m, tp) * 4 * m.head_size * m.hidden_size * m.num_hidden_layers

    return [
        (
            lambda m, tp: right(m, tp) / 2,
            "Half of it is missing. k and v are both copied, and a bfloat16 value takes two bytes.",
        ),
        (
            lambda m, tp: right(m, tp) / 4,
            "A factor of four is missing: k and v are both copied, and a bfloat16 value takes two bytes.",
        ),
        (lambda m, tp: right(m, tp) * 2, "That is twice as much. A bfloat16 value takes two bytes."),
        (lambda m, tp: right(m, tp) * 8, "Those are bits. I asked for bytes."),
        (lambda m, tp: right(m, tp) / 1e6, "Those are megabytes. I asked for bytes."),
        (lambda m, tp: right(m, tp) / 2**20, "Those are mebibytes. I asked for bytes."),
        (
            lambda m, tp: right(m, tp) / m.num_hidden_layers,
            "That is one layer. Every layer has its KV heads.",
        ),
        (
            lambda m, tp: right(m, tp) / m.hidden_size,
            "`hidden_size` is missing. A head is a matrix: head_size rows of hidden_size columns.",
        ),
        (
            lambda m, tp: right(m, tp) / m.head_size,
            "`head_size` is missing. A head is a matrix: head_size rows of hidden_size columns.",
        ),
        (
            lambda m, tp: right(m, tp) / m.head_size * m.hidden_size,
            "A head has head_size rows, and you took hidden_size: that would be the rows of all heads.",
        ),
        (
            lambda m, tp: right(m, tp) / tp,
            "That is the share of one rank. All ranks together store that many times as much.",
        ),
        (
            copies_of(lambda m, tp: max(tp, m.num_key_value_heads)),
            "You counted the originals as extra too: only the copies cost more.",
        ),
        (
            copies_of(lambda m, tp: tp if tp > m.num_key_value_heads else 0),
            "You counted the originals as extra too: only the copies cost more.",
        ),
        (
            copies_of(lambda m, tp: max(0, tp - m.num_attention_heads)),
            "You took the query heads. Only KV heads are copied: `num_key_value_heads`.",
        ),
        (
            copies_of(lambda m, tp: max(0, tp / m.num_key_value_heads - 1)),
            "That is how often one KV head is copied. There are `num_key_value_heads` of them.",
        ),
        (
            copies_of(lambda m, tp: max(0, tp // m.num_key_value_heads - 1)),
            "That is how often one KV head is copied. There are `num_key_value_heads` of them.",
        ),
        (
            unbounded,
            "With no more ranks than KV heads nothing is copied: the answer is 0 then, and yours is less than nothing.",
        ),
        (
            lambda m, tp: abs(unbounded(m, tp)),
            "With no more ranks than KV heads nothing is copied: the answer is 0 then.",
        ),
    ]


@exercise("04.copies", version=1, title="What copied KV heads cost", minutes=6)
def copies(
    extra_bytes: Callable[[ModelConfig, int], float], model: ModelConfig, tp_size: int, measured: int
) -> None:
    require_function(extra_bytes, "extra_bytes")
    inputs = {
        f"{toy.num_key_value_heads} KV heads of {toy.head_size} × {toy.hidden_size}, {toy.num_hidden_layers} layers, "
        f"{ranks} ranks": (toy, ranks)
        for toy, ranks in ((TOY, 40), (SECOND_TOY, 12), (TOY, 10), (TOY, 5), (SECOND_TOY, 1))
    }
    require_formula(
        extra_bytes,
        extra_bytes_of_copies,
        inputs,
        "Copies: one KV head a rank, less those that had to be stored anyway.",
        "Copies × 2 (k and v) × head_size × hidden_size × layers × 2 bytes; copies: `max(0, tp_size - "
        "num_key_value_heads)`.",
        mistakes=_copies_mistakes(),
    )
    prediction = require_number(extra_bytes(model, tp_size))
    if prediction != measured:
        raise Mistake(
            f"Your formula says {prediction:,} bytes for the real model, the files say {measured:,}."
        )


@exercise("04.names", version=1, title="The crossed names", minutes=3)
def names(fc: object, gate: object) -> None:
    projections = [_projection(name, plain(value)) for name, value in (("fc_is", fc), ("gate_is", gate))]
    require(projections[0] != projections[1], "Two tensors, two names: they cannot be the same one.")
    require(
        projections == list(NAMES),
        "That is what the names suggest. Compare the tensors with torch.equal and believe those.",
    )


def _projection(variable: str, value: object) -> str:
    """Return gate_proj or up_proj, of which the learner may have written the tensor's full name."""
    require(
        not isinstance(value, bool),
        f"`{variable}` is {value}, the result of a comparison. Which name did you compare?",
    )
    require(not isinstance(value, torch.Tensor), f"`{variable}` is a tensor. I expected its name, in quotes.")
    require(
        isinstance(value, str),
        f"`{variable}` should be a name in quotes, such as 'down_proj'; it is {shown(value)}.",
    )
    parts = str(value).strip().removesuffix(".weight").split(".")
    require(parts[-1] != "down_proj", f"`{variable}` is not down_proj: look at the shapes.")
    require(
        parts[-1] not in ("fc", "gate", "proj"),
        f"`{variable}` is {value!r}, a name in the rank files. What does Hugging Face call this tensor?",
    )
    require(
        parts[-1] in NAMES,
        f"`{variable}` is {value!r}; write 'gate_proj' or 'up_proj'.",
    )
    return parts[-1]
