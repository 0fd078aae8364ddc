"""What can be wrong with a fused q, k and v."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from labs.convert_checkpoint.projections import Projections, by_group, same
from labs.kit.check import Mistake, require
from labs.kit.values import type_name

CASES = (
    Projections(
        heads=4, kv_heads=4, head_size=3, hidden=5
    ),  # equal shapes: no wrong operator raises an error
    Projections(heads=8, kv_heads=4, head_size=2, hidden=6),
    Projections(heads=6, kv_heads=1, head_size=3, hidden=4, dtype=torch.bfloat16),
)


def require_tensor(answer: object, name: str) -> torch.Tensor:
    """Return `answer`, what the function `name` returned. Raises Mistake unless it is a tensor."""
    if answer is ... or answer is None:
        raise Mistake(f"`{name}` returns nothing yet. Does it `return` the tensor?")
    require(
        not isinstance(answer, np.ndarray),
        f"`{name}` gave a NumPy array. NumPy has no bfloat16, the dtype of the real weights: stay with torch.",
    )
    if not isinstance(answer, torch.Tensor):
        raise Mistake(f"`{name}` gave a {type_name(answer)}; I expected one torch.Tensor.")
    return answer


def require_rows(answer: torch.Tensor, expected: torch.Tensor, case: Projections, where: str) -> None:
    """Raise Mistake with the first difference between two tensors of one shape, or with their dtypes."""
    for index, (row, expected_row) in enumerate(zip(answer, expected, strict=True)):
        require(
            same(row, expected_row),
            f"{where}: row {index} should be {case.source(expected_row)}, yours is {case.source(row)}.",
        )
    require(
        answer.dtype == expected.dtype,
        f"{where}: q, k and v are {expected.dtype}, your tensor is {answer.dtype}. Fusing changes no number and no "
        f"dtype.",
    )


def check_fused(answer: torch.Tensor, case: Projections) -> None:
    """Raise Mistake unless `answer` is [q; k; v] of the case."""
    q, k, v = case.qkv
    fused = torch.cat([q, k, v])
    if not same(answer, fused):
        for mistake, hint in _mistakes(case):
            require(not same(answer, mistake), hint)
    require(
        answer.ndim == 2, f"Your tensor has {answer.ndim} dimensions. A weight has two: rows and columns."
    )
    require(
        answer.shape == (len(q) + 2 * len(k), case.hidden),
        f"The shape is {list(answer.shape)}; q {list(q.shape)}, k and v {list(k.shape)} make "
        f"[{len(q) + 2 * len(k)}, {case.hidden}]. Rows are outputs: stack them on dimension 0.",
    )
    require_rows(answer, fused, case, f"The shape is right, the rows are not. For {case}")


def _mistakes(case: Projections) -> Iterator[tuple[torch.Tensor, str]]:
    q, k, v = case.qkv
    yield torch.cat([k, q, v]), "k comes before q. The order is q, k, v, from the top."
    yield torch.cat([q, v, k]), "k and v are swapped. The order is q, k, v, from the top."
    yield torch.cat([v, k, q]), "That is upside down: v on top. The order is q, k, v, from the top."
    group_hint = (
        "That is the order of other frameworks: group by group. TensorRT-LLM takes all of q, then all of k, then all "
        "of v."
    )
    yield by_group(q, k, v, case.kv_heads), group_hint
    yield torch.cat([q, k]), "v is missing: all rows of q, of k, and of v."
    yield torch.cat([q, v]), "k is missing: all rows of q, of k, and of v."
    transposed_hint = (
        "Your tensor is transposed. A weight is stored as [outputs, inputs], and so is the fused one."
    )
    yield torch.cat([q, k, v]).T, transposed_hint
    if case.heads == case.kv_heads:
        sides_hint = (
            "You put q, k and v side by side, on dimension 1. Rows are outputs: stack them on dimension 0."
        )
        yield torch.cat([q, k, v], 1), sides_hint
        new_dimension_hint = "`stack` makes a new dimension. `cat` puts the rows below one another."
        yield torch.stack([q, k, v]), new_dimension_hint
        yield q + k + v, "You added the three. Fused means below one another: every row stays as it is."
    else:
        repeats = case.heads // case.kv_heads
        copies = [
            x.unflatten(0, (case.kv_heads, -1)).repeat_interleave(repeats, 0).flatten(0, 1) for x in (k, v)
        ]
        yield (
            torch.cat([q, *copies]),
            ("You repeated each KV head for the query heads that share it. The weight stores it once."),
        )
