"""What can be wrong with the shards of a fused q, k and v."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from labs.convert_checkpoint.check_fuse import require_rows
from labs.convert_checkpoint.projections import Projections, by_group, same
from labs.kit.check import Mistake, require

CASES = (
    (Projections(heads=8, kv_heads=4, head_size=2, hidden=6), (4, 2)),
    (Projections(heads=6, kv_heads=3, head_size=4, hidden=5, dtype=torch.bfloat16), (3,)),
    (Projections(heads=4, kv_heads=4, head_size=3, hidden=5), (4, 2)),
)


def check_shards(answers: Sequence[torch.Tensor], case: Projections) -> None:
    """Raise Mistake unless the answers, one of each rank, are the shards of the case."""
    tp_size = len(answers)
    expected = [torch.cat([x.chunk(tp_size)[rank] for x in case.qkv]) for rank in range(tp_size)]
    if not _all_same(answers, expected):
        _check_ranks(answers, expected)
        for mistake, *hints in _mistakes(case, tp_size):
            require(not _all_same(answers, mistake), *hints)
        num_rows = len(torch.cat(case.qkv))
        require(
            any(len(answer) != num_rows for answer in answers),
            f"Each rank has all {num_rows} rows. Column parallel means: shard the outputs, and those are rows here.",
        )
    for rank, (answer, tensor) in enumerate(zip(answers, expected, strict=True)):
        where = f"For {case}, tp_size {tp_size}, rank {rank}"
        if answer.shape != tensor.shape:
            raise Mistake(
                f"{where}: I expected {list(tensor.shape)}: this rank's part of q, then of k, then of v; got "
                f"{list(answer.shape)}."
            )
        require_rows(answer, tensor, case, where)


def _check_ranks(answers: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    """Raise Mistake when the shards are right but belong to other ranks."""
    ranks = range(len(expected))
    owners = [next((rank for rank in ranks if same(answer, expected[rank])), None) for answer in answers]
    if None in owners:
        return
    if owners == [0] * len(owners):
        raise Mistake("Every rank got the share of rank 0. Use `tp_rank`.")
    if owners == [*reversed(ranks)]:
        raise Mistake(
            "You counted the ranks from the end: rank 0 got the last share. Rank 0 has the first rows."
        )
    rank, owner = next((rank, owner) for rank, owner in enumerate(owners) if rank != owner)
    raise Mistake(
        f"Rank {rank} got the share of rank {owner}. Ranks count from 0, and rank 0 has the first rows."
    )


def _mistakes(case: Projections, tp_size: int) -> Iterator[tuple[Sequence[torch.Tensor], *tuple[str, ...]]]:
    """The shards of each typical mistake, with its hints."""
    q, k, v = case.qkv
    fused, ranks = torch.cat([q, k, v]), range(tp_size)
    parts = [[x.chunk(tp_size)[rank] for x in (q, k, v)] for rank in ranks]
    yield (
        fused.chunk(tp_size),
        "You fused before you sharded, so rank 0 got query rows only. The shapes fit, the heads do not, and nothing "
        "will complain.",
        "Shard each of q, k and v first. Then fuse what belongs to this rank.",
    )
    yield [fused] * tp_size, "Every rank got the whole fused tensor: nothing is sharded yet."
    yield (
        [torch.cat([part[0], k, v]) for part in parts],
        "k and v are whole on every rank. There are enough KV heads for each rank to have its own: shard them too.",
    )
    yield [torch.cat([q, *part[1:]]) for part in parts], "q is whole on every rank. Shard it too."
    yield [part[0] for part in parts], "That is this rank's part of q alone. Its k and v are missing."
    yield [torch.cat([k, q, v]) for q, k, v in parts], "In each shard k comes before q. The order is q, k, v."
    yield (
        [torch.cat([q, v, k]) for q, k, v in parts],
        "In each shard k and v are swapped. The order is q, k, v.",
    )
    yield (
        [by_group(q, k, v, case.kv_heads // tp_size) for q, k, v in parts],
        "Each shard is in the order of other frameworks: group by group. Take this rank's part of q, then of k, then "
        "of v.",
    )
    rows_hint = (
        "You dealt the rows out like cards and tore heads apart. Each rank gets contiguous rows: whole heads."
    )
    yield [torch.cat([x[rank::tp_size] for x in (q, k, v)]) for rank in ranks], rows_hint
    heads = [x.unflatten(0, (-1, case.head_size)) for x in (q, k, v)]
    yield (
        [torch.cat([x[rank::tp_size].flatten(0, 1) for x in heads]) for rank in ranks],
        "You dealt the heads out like cards, one to each rank in turn. Each rank gets neighbouring heads, so that its "
        "queries find their KV head.",
    )


def _all_same(answers: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    return all(same(answer, tensor) for answer, tensor in zip(answers, expected, strict=True))
