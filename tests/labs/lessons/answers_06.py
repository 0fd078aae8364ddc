"""Lesson 06: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import ceil, inf, nan
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas
import torch

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from labs.kit.replay import RecordingScheduler, drive
from labs.run_engine import Arrival, Replay
from labs.run_engine.simulation import LIMITS, TOKENS_PER_BLOCK, SimulatedExecutor, reference_rule, simulate


def lacking(block_manager: BlockManager, *requests: Request) -> int:
    return sum(
        block_manager.blocks_needed(request.max_total_tokens) - len(request.block_table.block_ids)
        for request in requests
    )


def lacking_tokens(request: Request) -> int:
    return request.max_total_tokens - TOKENS_PER_BLOCK * len(request.block_table.block_ids)


def right_then_never(calls: int) -> Callable[..., bool]:
    """The right rule for that many calls; then it admits no request."""
    remaining = iter(range(calls))
    return lambda request, running, block_manager: (
        next(remaining, None) is not None and reference_rule(request, running, block_manager)
    )


def fits_in_blocks_of(tokens_per_block: int) -> Callable[..., bool]:
    """The right rule for this block size alone."""
    return lambda request, running, blocks: (
        sum(ceil(other.max_total_tokens / tokens_per_block) for other in [request, *running])
        - sum(len(other.block_table.block_ids) for other in running)
        <= blocks.num_free_blocks
    )


def right_then_none(request: Request, running: list[Request], blocks: BlockManager) -> bool | None:
    if reference_rule(request, running, blocks):
        return True
    return None


def allocates(request: Request, running: list[Request], blocks: BlockManager) -> bool:
    admitted = reference_rule(request, running, blocks)
    blocks.allocate(request.block_table, 1)
    return admitted


def raises_when_full(request: Request, running: list[Request], blocks: BlockManager) -> bool:
    if not reference_rule(request, running, blocks):
        raise RuntimeError("full")
    return True


def ignores_overcommitted(request: Request, running: list[Request], blocks: BlockManager) -> bool:
    """Counts no request that lacks more than two blocks."""
    few = [other for other in running if lacking(blocks, other) <= 2]
    return lacking(blocks, request, *few) <= blocks.num_free_blocks


def in_flight_with_loops(request: Request, running: list[Request], block_manager: BlockManager) -> bool:
    free = block_manager.num_free_blocks
    for other in running:
        free -= block_manager.blocks_needed(other.max_total_tokens)
        free += len(other.block_table.block_ids)
    return not free < block_manager.blocks_needed(request.max_total_tokens)


def in_flight_of_the_whole_cache(
    request: Request, running: list[Request], block_manager: BlockManager
) -> bool:
    """What all requests need at their longest, against all blocks: the held ones are on both sides."""
    return (
        sum(block_manager.blocks_needed(r.max_total_tokens) for r in (request, *running))
        <= block_manager.num_blocks
    )


class Rule:
    """A rule that is an object."""

    def __call__(self, request: Request, running: list[Request], block_manager: BlockManager) -> int:
        return 1 if reference_rule(request, running, block_manager) else 0


def serve(
    slots: int = 8, num_blocks: int = 24, policy: Any = "guaranteed_no_evict", reuse: bool = False
) -> Replay:
    """A scheduler without a model; every request has the same prefix."""
    trace = [Arrival([1] * (40 + 10 * n), 20 + n) for n in range(8)]
    limits = replace(LIMITS, max_batch_size=slots)
    scheduler = RecordingScheduler(limits, BlockManager(num_blocks, TOKENS_PER_BLOCK, reuse), policy)
    return drive(SimulatedExecutor(scheduler), scheduler, trace)


def with_other_token(replay: Replay, token_id: int) -> Replay:
    """The same replay with one token of an answer changed."""
    requests = [copy(request) for request in replay.requests]
    requests[3].token_ids = [*requests[3].token_ids[:-1], token_id]
    return replace(replay, requests=requests)


PROOF = {
    "alone": serve(slots=1),
    "together": serve(num_blocks=100),
    "paused": serve(policy="max_utilization", num_blocks=8),
    "reused": serve(slots=2, reuse=True),
}
OTHER_TRACE = simulate(reference_rule, [Arrival([1] * 50, 30)] * 4)


def proof(dtype: str = "float32", **changed: object) -> tuple[Any, ...]:
    return PROOF | changed, dtype


def break_even(build_seconds: float, rate: float, other_rate: float) -> float:
    return inf if rate <= other_rate else build_seconds / (1 / other_rate - 1 / rate)


def never_pays_gives(value: float) -> Callable[[float, float, float], float]:
    """Right where the build pays; this number where it never does."""
    return lambda build, aot, vllm: break_even(build, aot, vllm) if aot > vllm else value


def break_even_by_cases(build: float, ours: float, theirs: float) -> float:
    if ours <= theirs:
        return float("inf")
    return build * ours * theirs / (ours - theirs)


def break_even_in_fractions(build: float, ours: float, theirs: float) -> Fraction | float:
    saved = 1 / Fraction(theirs) - 1 / Fraction(ours)
    return Fraction(build) / saved if saved > 0 else inf


def break_even_in_numpy(build: float, ours: float, theirs: float) -> Any:
    with np.errstate(divide="ignore"):
        saved = np.maximum(1 / np.float64(theirs) - 1 / np.float64(ours), 0)
        return np.where(saved > 0, np.float64(build) / saved, np.inf)


ALONE_BY_RULE = simulate(
    lambda request, running, blocks: not running,
    [Arrival([1] * (40 + 10 * n), 20 + n) for n in range(8)],
    100,
)

RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "06.admission": [
        (reference_rule,),
        (in_flight_with_loops,),
        (in_flight_of_the_whole_cache,),
        (lambda *arguments: np.bool_(reference_rule(*arguments)),),
        (lambda *arguments: torch.tensor(reference_rule(*arguments)),),
        (Rule(),),
    ],
    "06.same": [
        proof(),
        proof(alone=ALONE_BY_RULE),
        proof("bfloat16", together=with_other_token(PROOF["together"], 7)),  # rounding
        (MappingProxyType(PROOF), "float32"),
        (SimpleNamespace(**PROOF), "float32"),
        (pandas.Series(PROOF), "float32"),
        (dict(reversed(PROOF.items())), "float32"),
    ],
    "06.break_even": [
        (break_even,),
        (break_even_by_cases,),
        (break_even_in_fractions,),
        (break_even_in_numpy,),
        (lambda *numbers: Decimal(break_even(*numbers)),),
        (lambda *numbers: tokens if (tokens := break_even(*numbers)) == inf else ceil(tokens),),
    ],
}

WRONG_RULES: list[tuple[Callable[..., object], str]] = [
    (lambda request, running, blocks: print(end=""), "not True or False"),
    (lambda request, running, blocks: lacking(blocks, request, *running), "not True or False"),
    (lambda request, running, blocks: bool(running), "when none runs, all wait"),
    (lambda request, running, blocks: not running, "still static batching"),
    (lambda request, running, blocks: True, "Not even its prompt fits"),
    (lambda request, running, blocks: running.clear() or True, "Not even its prompt fits"),
    (
        lambda request, running, blocks: (
            blocks.blocks_needed(request.num_prompt_tokens) <= blocks.num_free_blocks
        ),
        "Its prompt fits",
    ),
    (lambda request, running, blocks: len(running) < 8, "Not even its prompt fits"),
    (
        lambda request, running, blocks: lacking(blocks, *running) <= blocks.num_free_blocks,
        "running requests alone",
    ),
    (
        lambda request, running, blocks: lacking(blocks, request, *running) <= blocks.num_blocks,
        "all blocks of the cache",
    ),
    (fits_in_blocks_of(16), "blocks of 16 tokens"),
    (fits_in_blocks_of(32), "blocks of 32 tokens"),
    (right_then_none, "Does it `return` on every path?"),
    (allocates, "A rule only answers"),
    (raises_when_full, "your code raised RuntimeError: full"),
    (ignores_overcommitted, "lack more blocks than are free"),
    (
        lambda request, running, blocks: lacking(blocks, request) <= blocks.num_free_blocks,
        "all its blocks yet",
    ),
    (
        lambda request, running, blocks: (
            sum(lacking_tokens(other) for other in [request, *running])
            <= TOKENS_PER_BLOCK * blocks.num_free_blocks
        ),
        "a block has one owner",
    ),
    (
        lambda request, running, blocks: lacking(blocks, request, *running) < blocks.num_free_blocks,
        "equal is enough",
    ),
    (
        lambda request, running, blocks: (
            sum(blocks.blocks_needed(other.max_total_tokens) for other in [request, *running])
            <= blocks.num_free_blocks
        ),
        "only what it lacks",
    ),
    (
        lambda request, running, blocks: reference_rule(request, running, blocks) and len(running) < 2,
        "wait that fit",
    ),
    (right_then_never(12), "your rule still lets none start"),
    (
        lambda request, running, blocks: reference_rule(request, running, blocks) or len(running) > 2,
        "blocks ran out",
    ),
]

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("06.admission", (True,), "Pass it uncalled"),
    *(("06.admission", (rule,), hint) for rule, hint in WRONG_RULES),
    ("06.same", ([*PROOF.values()], "float32"), "a dictionary with"),
    ("06.same", proof(**{"batched": PROOF["together"]}), "a dictionary with"),
    ("06.same", proof(paused=...), "Still `...`: paused"),
    ("06.same", proof(paused=[[1, 2]]), "`paused` is list"),
    ("06.same", proof(alone=PROOF["together"]), "Run one at a time"),
    ("06.same", proof(together=PROOF["alone"]), "no requests were batched"),
    ("06.same", proof(together=PROOF["paused"]), "that is `paused` already"),
    ("06.same", proof(paused=PROOF["together"]), "paused no request"),
    ("06.same", proof(reused=PROOF["together"]), "Reuse is off"),
    ("06.same", proof(together=OTHER_TRACE), "served other requests"),
    ("06.same", proof(together=with_other_token(PROOF["together"], 7)), "`together`: 1 answers differ"),
    ("06.break_even", (1e5,), "Pass it uncalled"),
    ("06.break_even", (lambda build, aot, vllm: None,), "not a number"),
    ("06.break_even", (lambda build, aot, vllm: build / (aot - vllm),), "Rates do not add up"),
    ("06.break_even", (lambda build, aot, vllm: build / (1 / vllm - 1 / aot) / aot,), "Those are seconds: how"),
    ("06.break_even", (lambda build, aot, vllm: build / (1 / vllm - 1 / aot) / vllm,), "of the slower engine"),
    ("06.break_even", (lambda build, aot, vllm: build * aot,), "catch up with itself"),
    ("06.break_even", (lambda build, aot, vllm: build * vllm,), "It goes on serving"),
    ("06.break_even", (lambda build, aot, vllm: build * (aot - vllm),), "saved on each token is a time"),
    ("06.break_even", (lambda build, aot, vllm: build / (1 / aot - 1 / vllm),), "but for the sign"),
    ("06.break_even", (lambda build, aot, vllm: 1.0,), "For a build of 100 s, 250 against 200 tokens/s"),
    ("06.break_even", (lambda build, aot, vllm: break_even(build, aot, vllm) / 1000,), "thousands of tokens"),
    ("06.break_even", (lambda build, aot, vllm: build * aot / vllm,), "the ratio of the rates"),
    ("06.break_even", (lambda build, aot, vllm: inf,), "This build pays"),
    ("06.break_even", (lambda build, aot, vllm: build / (1 / vllm - 1 / aot),), "divide by zero"),
    ("06.break_even", (never_pays_gives(nan),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(-5.0),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(0.0),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(1e12),), "never pays: return"),
    ("06.break_even", (lambda build, aot, vllm: break_even(build, aot, vllm) if build else inf,), "no time"),
]  # fmt: skip
