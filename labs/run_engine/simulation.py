"""Rules on paper: one situation of a KV cache, or a trace that is scheduled without a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engineroom.engine.config import BuildConfig
from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Request
from labs.run_engine.replay import Arrival, Recorder, Rule, Run, drive

SIZE = 32  # tokens of a block
LIMITS = BuildConfig(max_batch_size=8, max_input_len=512, max_seq_len=1024, max_num_tokens=512)


@dataclass
class Situation:
    """A cache of `blocks` blocks, in which requests of (prompt, answer, answered so far) run, and one asks."""

    blocks: int
    running: list[tuple[int, int, int]]
    asks: tuple[int, int]

    def ask(self, rule: Rule) -> Any:
        blocks = BlockManager(self.blocks + 1, SIZE)
        many = [_request(*one) for one in (*self.running, (*self.asks, 0))]
        for one in many[:-1]:
            one.computed = one.prompt
            blocks.grow(one.pages, len(one.tokens))
        return rule(many[-1], many[:-1], blocks)

    def __str__(self) -> str:
        held = [f"{p} + {a}, {-(-(p + done) // SIZE)} held" for p, a, done in self.running]
        return (
            f"{self.blocks} blocks of {SIZE} tokens; running (prompt + answer, blocks): {'; '.join(held) or 'nobody'}; "
            f"{self.asks[0]} + {self.asks[1]} asks"
        )


def _request(prompt: int, answer: int, answered: int) -> Request:
    made = Request([1] * prompt, SamplingParams(max_tokens=answer))
    made.tokens += [1] * answered
    return made


def right(request: Request, running: list[Request], blocks: BlockManager) -> bool:
    """guaranteed_no_evict."""
    return (
        sum(blocks.needed(one.longest) - len(one.pages.blocks) for one in [request, *running])
        <= blocks.available
    )


class Paper:
    """Steps of a scheduler alone: nothing is computed, and every token is 1."""

    def __init__(self, scheduler: Recorder) -> None:
        self.scheduler = scheduler

    def step(self) -> list[tuple[Request, Output]]:
        plan, done = self.scheduler.plan(), []
        for request, count in [*plan.context, *((one, 1) for one in plan.generation)]:
            request.computed += count
            self.scheduler.blocks.commit(request.pages, request.tokens[: request.computed])
            if request.computed == len(request.tokens):
                request.tokens.append(1)
                done.append(request)
        for request in done:
            if request.complete:
                self.scheduler.finish(request)
        return [(request, Output(1, 0.0)) for request in done]


def on_paper(rule: Rule, trace: list[Arrival], blocks: int = 24) -> Run:
    """A trace under a rule, in a cache of so many blocks, without a model. Raises as `replay`."""
    recorder = Recorder(LIMITS, BlockManager(blocks + 1, SIZE, enable_block_reuse=False), rule=rule)
    return drive(Paper(recorder), recorder, trace)
