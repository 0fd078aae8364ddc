"""Lesson 06: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from math import inf, nan
from typing import Any

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.scheduler import Request
from labs.run_engine import Arrival, Run
from labs.run_engine.simulation import LIMITS, SIZE, Paper, on_paper, right
from labs.run_engine.replay import Recorder, drive


def lacks(blocks: BlockManager, *many: Request) -> int:
    return sum(blocks.needed(one.longest) - len(one.pages.blocks) for one in many)


def once_then_never(answers: int) -> Callable[..., bool]:
    """As it should be for so many questions, then nobody."""
    asked = iter(range(answers))
    return lambda one, running, blocks: next(asked, None) is not None and right(one, running, blocks)


def serve(seats: int = 8, blocks: int = 24, policy: Any = "guaranteed_no_evict", reuse: bool = False) -> Run:
    """A scheduler alone; every request has the same beginning."""
    trace = [Arrival([1] * (40 + 10 * n), 20 + n) for n in range(8)]
    made = Recorder(replace(LIMITS, max_batch_size=seats), BlockManager(blocks + 1, SIZE, reuse), policy)
    paper = Paper(made)
    return drive(paper, made, trace)


def other(run: Run, token: int) -> Run:
    """The same run with one token of an answer changed."""
    requests = [copy(request) for request in run.requests]
    requests[3].tokens = [*requests[3].tokens[:-1], token]
    return replace(run, requests=requests)


PROOF = {
    "alone": serve(seats=1),
    "together": serve(blocks=100),
    "paused": serve(policy="max_utilization", blocks=8),
    "reused": serve(seats=2, reuse=True),
}
MIXED = on_paper(right, [Arrival([1] * 50, 30)] * 4)


def proof(dtype: str = "float32", **changed: object) -> tuple[Any, ...]:
    return PROOF | changed, dtype


def break_even(build: float, ours: float, theirs: float) -> float:
    return inf if ours <= theirs else build / (1 / theirs - 1 / ours)


def unless(value: float) -> Callable[[float, float, float], float]:
    """Right where it pays; this number where it never does."""
    return lambda build, ours, theirs: break_even(build, ours, theirs) if ours > theirs else value


Many = Sequence[Request]

RIGHT: dict[str, tuple[Any, ...]] = {
    "06.admission": (right,),
    "06.same": proof(),
    "06.break_even": (break_even,),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("06.admission", (True,), "Pass it uncalled"),
    ("06.admission", (lambda one, running, blocks: print(end=""),), "not True or False"),
    ("06.admission", (lambda one, running, blocks: lacks(blocks, one, *running),), "not True or False"),
    ("06.admission", (lambda one, running, blocks: bool(running),), "when nobody runs, all wait"),
    ("06.admission", (lambda one, running, blocks: not running,), "static batching still"),
    ("06.admission", (lambda one, running, blocks: True,), "Its prompt fits"),
    ("06.admission", (lambda one, running, blocks: blocks.needed(one.prompt) <= blocks.available,), "Its prompt fits"),
    ("06.admission", (lambda one, running, blocks: len(running) < 8,), "Its prompt fits"),
    ("06.admission", (lambda one, running, blocks: lacks(blocks, one) <= blocks.available,), "not all its blocks yet"),
    ("06.admission", (lambda one, running, blocks: sum(r.longest - SIZE * len(r.pages.blocks) for r in [one, *running])
     <= SIZE * blocks.available,), "a block has one owner"),
    ("06.admission", (lambda one, running, blocks: lacks(blocks, one, *running) < blocks.available,),
     "equal is enough"),
    ("06.admission", (lambda one, running, blocks: sum(blocks.needed(r.longest) for r in [one, *running])
     <= blocks.available,), "only what it lacks"),
    ("06.admission", (lambda one, running, blocks: right(one, running, blocks) and len(running) < 2,), "wait that fit"),
    ("06.admission", (once_then_never(12),), "you still let nobody start"),
    ("06.admission", (lambda one, running, blocks: right(one, running, blocks) or len(running) > 2,), "blocks ran out"),
    ("06.same", ([*PROOF.values()], "float32"), "a dictionary with"),
    ("06.same", proof(**{"batched": PROOF["together"]}), "a dictionary with"),
    ("06.same", proof(paused=...), "Still `...`: paused"),
    ("06.same", proof(paused=[[1, 2]]), "`paused` is list"),
    ("06.same", proof(alone=PROOF["together"]), "One at a time"),
    ("06.same", proof(together=PROOF["alone"]), "nobody was batched"),
    ("06.same", proof(together=PROOF["paused"]), "that is `paused` already"),
    ("06.same", proof(paused=PROOF["together"]), "paused nobody"),
    ("06.same", proof(reused=PROOF["together"]), "Reuse is off"),
    ("06.same", proof(together=MIXED), "served other requests"),
    ("06.same", proof(together=other(PROOF["together"], 7)), "`together`: 1 answers differ"),
    ("06.break_even", (1e5,), "Pass it uncalled"),
    ("06.break_even", (lambda build, ours, theirs: None,), "not a number"),
    ("06.break_even", (lambda build, ours, theirs: build / (ours - theirs),), "Rates do not add up"),
    ("06.break_even", (lambda build, ours, theirs: build / (1 / theirs - 1 / ours) / ours,), "Those are seconds: how"),
    ("06.break_even", (lambda build, ours, theirs: build / (1 / theirs - 1 / ours) / theirs,), "of the slower engine"),
    ("06.break_even", (lambda build, ours, theirs: build * ours,), "catch up with itself"),
    ("06.break_even", (lambda build, ours, theirs: build * theirs,), "It goes on serving"),
    ("06.break_even", (lambda build, ours, theirs: build * (ours - theirs),), "saved on each token is a time"),
    ("06.break_even", (lambda build, ours, theirs: build / (1 / ours - 1 / theirs),), "but for the sign"),
    ("06.break_even", (lambda build, ours, theirs: 1.0,), "I get 100,000 tokens"),
    ("06.break_even", (lambda build, ours, theirs: build / (1 / theirs - 1 / ours),), "divide by zero"),
    ("06.break_even", (unless(nan),), "Never is `math.inf`"),
    ("06.break_even", (unless(-5.0),), "Never is `math.inf`"),
    ("06.break_even", (unless(0.0),), "Never is `math.inf`"),
    ("06.break_even", (unless(1e12),), "never pays: return"),
    ("06.break_even", (lambda build, ours, theirs: break_even(build, ours, theirs) if build else inf,), "no time"),
]  # fmt: skip
