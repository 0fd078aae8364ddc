"""Serve a trace of requests one step at a time, and record what each step computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple, Protocol

from engineroom.engine.config import Limits
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.block_allocator import BlockAllocator, RefCountAllocator
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy, ScheduledBatch, Scheduler

# Whether a waiting request may start beside the running ones; all blocks belong to the block manager.
AdmissionRule = Callable[[Request, Sequence[Request], BlockManager], bool]


class Arrival(NamedTuple):
    """A request of a trace. It arrives before step `step` and generates exactly `max_tokens` tokens."""

    token_ids: list[int]
    max_tokens: int
    step: int = 0


@dataclass(frozen=True)
class ReplayStep:
    """One step. A request is named by its index in the trace.

    - `seconds`: the duration of the step.
    - `context`: how many tokens of its context each request computed.
    - `generation`: the requests that computed one token of their answer.
    - `received`: the requests that got a token.
    - `waiting`: the requests that had to wait, preempted ones included.
    - `num_used_blocks`: KV cache blocks in use at the end of the step.
    """

    seconds: float
    context: dict[int, int]
    generation: list[int]
    received: list[int]
    waiting: list[int]
    num_used_blocks: int

    @property
    def batch_size(self) -> int:
        """How many requests the step computed."""
        return len(self.context) + len(self.generation)


@dataclass(frozen=True)
class Replay:
    """A trace that was served. Lists by request are in the order of the trace."""

    trace: Sequence[Arrival]
    requests: list[Request]
    steps: list[ReplayStep] = field(default_factory=list)
    num_reused_tokens: int = 0

    @property
    def answers(self) -> list[list[int]]:
        """The token ids of each answer."""
        return [request.output_token_ids for request in self.requests]

    @property
    def num_preemptions(self) -> int:
        """How often a running request lost its blocks and had to be computed again."""
        return sum(request.num_preemptions for request in self.requests)

    @property
    def largest_batch(self) -> int:
        """The most requests that one step computed."""
        return max((step.batch_size for step in self.steps), default=0)

    @property
    def step_end_times(self) -> list[float]:
        """Seconds from the start of the replay to the end of each step."""
        return list(accumulate(step.seconds for step in self.steps))

    def token_steps(self, request_index: int) -> list[int]:
        """The indices of the steps in which a request got its tokens."""
        return [index for index, step in enumerate(self.steps) if request_index in step.received]

    @property
    def ttft_steps(self) -> list[int]:
        """Steps from each request's arrival to its first token, at least 1. They are the same on every machine."""
        return [1 + self.token_steps(index)[0] - arrival.step for index, arrival in enumerate(self.trace)]


class RecordingScheduler(Scheduler):
    """The engine's scheduler, which keeps its last batch. If `rule` is given, it decides instead of the policy."""

    def __init__(
        self,
        limits: Limits,
        block_manager: BlockManager,
        policy: CapacitySchedulerPolicy = "guaranteed_no_evict",
        rule: AdmissionRule | None = None,
    ) -> None:
        super().__init__(limits, block_manager, policy)
        self.rule = rule
        self.last_batch = ScheduledBatch()

    def admits(self, request: Request) -> bool:
        if self.rule is None:
            return super().admits(request)
        return self.rule(request, list(self.running), self.block_manager)

    def schedule(self) -> ScheduledBatch:
        self.last_batch = super().schedule()
        return self.last_batch


class StepLoop(Protocol):
    """What `drive` can drive: an Executor, or the simulation of one."""

    def step(self) -> list[tuple[Request, TokenOutput]]: ...


def replay(
    engine: EngineDir,
    trace: Sequence[Arrival],
    *,
    rule: AdmissionRule | None = None,
    policy: CapacitySchedulerPolicy = "guaranteed_no_evict",
    kv_tokens: int | None = None,
    reuse: bool = False,
    make_block_allocator: Callable[[int], BlockAllocator] = RefCountAllocator,
    watch: Callable[[BlockManager, Sequence[Request]], None] | None = None,
    **limits: int,
) -> Replay:
    """Serve a trace with an empty KV cache of `kv_tokens` tokens. The host reads every token before the next step.

    `rule` admits requests instead of `policy`. `reuse`: whether requests share the blocks of equal prefixes.
    `make_block_allocator` returns the allocator of that many blocks. `watch` is called after each step, with the
    requests in the order of the trace. `limits` such as max_num_tokens=64 replace the engine's own and must not exceed
    them. Raises RequestError for a request beyond the limits, ValueError for an arrival before step 0, and RuntimeError
    if the rule lets no request start while none runs.
    """
    kv_cache_config = KvCacheConfig(kv_tokens, enable_block_reuse=reuse)
    executor = Executor(engine, kv_cache_config, policy, 0, make_block_allocator)
    scheduler = RecordingScheduler(replace(engine.limits, **limits), executor.block_manager, policy, rule)
    executor.scheduler = scheduler
    return drive(executor, scheduler, trace, watch)


def drive(
    loop: StepLoop,
    scheduler: RecordingScheduler,
    trace: Sequence[Arrival],
    watch: Callable[[BlockManager, Sequence[Request]], None] | None = None,
) -> Replay:
    """Run the steps of `loop`, which uses `scheduler`, until every request is finished. Raises what `replay` raises."""
    requests = [
        Request(list(arrival.token_ids), SamplingParams(max_tokens=arrival.max_tokens)) for arrival in trace
    ]
    for request in requests:
        scheduler.check(request)
    if any(arrival.step < 0 for arrival in trace):
        raise ValueError("A request arrives before step 0. The first step of a trace is 0.")
    indices = {request: index for index, request in enumerate(requests)}
    steps: list[ReplayStep] = []
    while not all(request.finished for request in requests):
        for request, arrival in zip(requests, trace, strict=True):
            if arrival.step == len(steps):
                scheduler.add(request)
        steps.append(_record_step(loop, scheduler, indices))
        if watch:
            watch(scheduler.block_manager, requests)
        if not steps[-1].batch_size and scheduler.waiting:
            raise RuntimeError("No request runs, and the rule lets none start: they would wait for ever.")
    return Replay(trace, requests, steps, scheduler.block_manager.num_reused_tokens)


def _record_step(loop: StepLoop, scheduler: RecordingScheduler, indices: dict[Request, int]) -> ReplayStep:
    began = time.perf_counter()
    outputs = loop.step()
    seconds = time.perf_counter() - began
    batch, block_manager = scheduler.last_batch, scheduler.block_manager
    return ReplayStep(
        seconds=seconds,
        context={indices[request]: num_tokens for request, num_tokens in batch.context},
        generation=[indices[request] for request in batch.generation],
        received=[indices[request] for request, _ in outputs],
        waiting=[indices[request] for request in scheduler.waiting],
        num_used_blocks=block_manager.num_blocks - block_manager.num_free_blocks,
    )
