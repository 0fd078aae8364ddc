"""Lesson 06: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from math import inf, nan
from typing import Any

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from labs.run_engine import Arrival, Replay
from labs.kit.replay import RecordingScheduler, drive
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


RIGHT: dict[str, tuple[Any, ...]] = {
    "06.admission": (reference_rule,),
    "06.same": proof(),
    "06.break_even": (break_even,),
}

WRONG_RULES: list[tuple[Callable[..., object], str]] = [
    (lambda request, running, blocks: print(end=""), "not True or False"),
    (lambda request, running, blocks: lacking(blocks, request, *running), "not True or False"),
    (lambda request, running, blocks: bool(running), "when none runs, all wait"),
    (lambda request, running, blocks: not running, "still static batching"),
    (lambda request, running, blocks: True, "Its prompt fits"),
    (
        lambda request, running, blocks: (
            blocks.blocks_needed(request.num_prompt_tokens) <= blocks.num_free_blocks
        ),
        "Its prompt fits",
    ),
    (lambda request, running, blocks: len(running) < 8, "Its prompt fits"),
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
    ("06.break_even", (lambda build, aot, vllm: 1.0,), "I get 100,000 tokens"),
    ("06.break_even", (lambda build, aot, vllm: build / (1 / vllm - 1 / aot),), "divide by zero"),
    ("06.break_even", (never_pays_gives(nan),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(-5.0),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(0.0),), "Never is `math.inf`"),
    ("06.break_even", (never_pays_gives(1e12),), "never pays: return"),
    ("06.break_even", (lambda build, aot, vllm: break_even(build, aot, vllm) if build else inf,), "no time"),
]  # fmt: skip
