"""The same requests through an engine again and again, one step at a time, and who computed what in which step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple, Protocol

from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig, Output
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Plan, Policy, Request, Scheduler

Rule = Callable[[Request, Sequence[Request], BlockManager], bool]


class Arrival(NamedTuple):
    """A request of a trace: token ids of the prompt, tokens of the answer, the step before which it comes."""

    prompt: list[int]
    answer: int
    step: int = 0


@dataclass(frozen=True)
class Step:
    """By the requests' numbers: tokens of context computed, who generated, who got a token, who waited.

    `seconds` it took; `blocks` of the KV cache that were held when it ended.
    """

    seconds: float
    context: dict[int, int]
    generation: list[int]
    given: list[int]
    waiting: list[int]
    blocks: int

    @property
    def together(self) -> int:
        """Requests that were computed."""
        return len(self.context) + len(self.generation)


@dataclass(frozen=True)
class Run:
    """A trace that was served. Lists by request are in the order of the trace."""

    trace: Sequence[Arrival]
    requests: list[Request]
    steps: list[Step] = field(default_factory=list)
    reused: int = 0

    @property
    def answers(self) -> list[list[int]]:
        return [request.tokens[request.prompt :] for request in self.requests]

    @property
    def paused(self) -> int:
        """How often a running request lost its blocks, to be computed again."""
        return sum(request.paused for request in self.requests)

    @property
    def together(self) -> int:
        """The most requests that were computed in one step."""
        return max((step.together for step in self.steps), default=0)

    @property
    def clock(self) -> list[float]:
        """Seconds from the start to the end of each step."""
        return list(accumulate(step.seconds for step in self.steps))

    def token_steps(self, request: int) -> list[int]:
        """The steps, from 0, in which a request got its tokens."""
        return [number for number, step in enumerate(self.steps) if request in step.given]

    @property
    def ttft(self) -> list[int]:
        """Steps from each request's arrival to its first token, 1 at least; the same on every machine."""
        return [1 + self.token_steps(n)[0] - one.step for n, one in enumerate(self.trace)]


class Recorder(Scheduler):
    """The engine's scheduler, which keeps its last plan; `rule`, if given, says who may start."""

    def __init__(
        self,
        limits: BuildConfig,
        blocks: BlockManager,
        policy: Policy = "guaranteed_no_evict",
        rule: Rule | None = None,
    ) -> None:
        super().__init__(limits, blocks, policy)
        self.rule, self.last = rule, Plan()

    def admits(self, request: Request) -> bool:
        return self.rule(request, list(self.running), self.blocks) if self.rule else super().admits(request)

    def plan(self) -> Plan:
        self.last = super().plan()
        return self.last


class Engine(Protocol):
    """What is driven: an Executor, or a scheduler alone."""

    def step(self) -> list[tuple[Request, Output]]: ...


def replay(
    engine: EngineDir,
    trace: Sequence[Arrival],
    *,
    rule: Rule | None = None,
    policy: Policy = "guaranteed_no_evict",
    kv_tokens: int | None = None,
    reuse: bool = False,
    **limits: int,
) -> Run:
    """Serve a trace from an empty KV cache of `kv_tokens` tokens, each token read before the next step.

    `rule` takes the place of `policy`; `reuse` shares equal prefixes; `limits` are smaller ones than the engine's, of
    its own names, such as max_num_tokens=64. Raises RequestError for a request beyond the limits, ValueError for an
    arrival before step 0, RuntimeError when the rule lets nobody start.
    """
    executor = Executor(engine, KvCacheConfig(kv_tokens, enable_block_reuse=reuse), policy, lag=0)
    executor.scheduler = recorder = Recorder(replace(engine.build, **limits), executor.blocks, policy, rule)
    return drive(executor, recorder, trace)


def drive(engine: Engine, recorder: Recorder, trace: Sequence[Arrival]) -> Run:
    """Take steps of an engine, whose scheduler is `recorder`, until the trace is answered. Raises as `replay`."""
    requests = [Request(list(one.prompt), SamplingParams(max_tokens=one.answer)) for one in trace]
    for request in requests:
        recorder.check(request)
    if any(one.step < 0 for one in trace):
        raise ValueError("a request arrives before step 0; the first step of a trace is 0.")
    run = Run(trace, requests)
    while not all(request.finished for request in requests):
        for request, one in zip(requests, trace, strict=True):
            if one.step == len(run.steps):
                recorder.add(request)
        run.steps.append(_step(engine, recorder, {request: n for n, request in enumerate(requests)}))
        if not run.steps[-1].together and recorder.waiting:
            raise RuntimeError("nobody runs, and the rule lets nobody start: the others would wait for ever.")
    return replace(run, reused=recorder.blocks.reused_tokens)


def _step(engine: Engine, recorder: Recorder, number: dict[Request, int]) -> Step:
    began = time.perf_counter()
    given = engine.step()
    seconds, plan = time.perf_counter() - began, recorder.last
    return Step(
        seconds=seconds,
        context={number[request]: count for request, count in plan.context},
        generation=[number[request] for request in plan.generation],
        given=[number[request] for request, _ in given],
        waiting=[number[request] for request in recorder.waiting],
        blocks=recorder.blocks.total - recorder.blocks.available,
    )
