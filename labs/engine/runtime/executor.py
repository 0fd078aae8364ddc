"""The loop: plan a step, run it, sample, hand tokens out; and the same behind async iterators."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from labs.engine.directory import EngineDir, open_engine
from labs.engine.runtime.graphs import Graphs, shapes
from labs.engine.runtime.kv_cache import BlockManager
from labs.engine.runtime.sampling import SamplingParams, sample
from labs.engine.runtime.scheduler import Plan, Policy, Request, Scheduler

CPU_SHARE = 0.2  # of the free memory, for the KV cache, when nothing else is said


@dataclass(frozen=True)
class Output:
    """One token of an answer; `finish_reason` is set with the last: "stop", "length" or "cancelled"."""

    token: int
    logprob: float
    finish_reason: str | None = None


@dataclass(frozen=True)
class KvCacheConfig:
    """Names as in TensorRT-LLM's KvCacheConfig. `max_tokens` wins; else a share of the free memory is taken."""

    max_tokens: int | None = None
    free_gpu_memory_fraction: float = 0.9
    enable_block_reuse: bool = True


class Executor:
    """An engine that serves requests together. `step` is one turn of the loop; not thread-safe by itself."""

    def __init__(
        self,
        engine: EngineDir | str | Path,
        kv: KvCacheConfig | None = None,
        policy: Policy = "guaranteed_no_evict",
    ) -> None:
        """Raises EngineError when the engine cannot be used here."""
        self.engine = engine if isinstance(engine, EngineDir) else open_engine(engine)
        kv = kv or KvCacheConfig()
        count = num_blocks(self.engine, kv)
        self.blocks = BlockManager(count, self.engine.build.tokens_per_block, kv.enable_block_reuse)
        self.scheduler = Scheduler(self.engine.build, self.blocks, policy)
        self.graphs = Graphs(self.engine, count)
        self.steps = 0

    def step(self) -> list[tuple[Request, Output]]:
        """One step for everybody; the tokens it gave. Empty when nothing is to do."""
        plan = self.scheduler.plan()
        given: list[tuple[Request, Output]] = []
        for request, count in plan.context:
            logits = self._context(request, count)
            if request.computed == len(request.tokens):
                given += self._give([request], logits)
        if plan.generation:
            given += self._give(plan.generation, self._generation(plan))
        self.steps += bool(plan.context or plan.generation)
        return given

    def _context(self, request: Request, count: int) -> torch.Tensor:
        first, last = request.computed, request.computed + count
        logits = self.graphs.context(request.tokens[first:last], first, request.pages.blocks)
        request.computed = last
        self.blocks.commit(request.pages, request.tokens[:last])
        return logits

    def _generation(self, plan: Plan) -> torch.Tensor:
        many = plan.generation
        logits = self.graphs.generation(
            [r.tokens[-1] for r in many], [r.computed for r in many], [r.pages.blocks for r in many]
        )
        for request in many:
            request.computed += 1
            if request.computed % self.blocks.tokens_per_block == 0:
                self.blocks.commit(request.pages, request.tokens)
        return logits

    def _give(self, requests: Sequence[Request], logits: torch.Tensor) -> list[tuple[Request, Output]]:
        tokens, logprobs = sample(logits, [r.params for r in requests], [r.stream for r in requests])
        given = []
        for request, token, logprob in zip(requests, tokens, logprobs, strict=True):
            request.tokens.append(token)
            reason = request.finish_reason()
            if reason:
                self.scheduler.finish(request)
            given.append((request, Output(token, logprob, reason)))
        return given

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[int]]:
        """Answers to all prompts, served together. Raises RequestError for a prompt beyond the limits."""
        requests = [Request(list(prompt), params) for prompt in prompts]
        for request in requests:
            self.scheduler.check(request)
        for request in requests:
            self.scheduler.add(request)
        while self.scheduler.waiting or self.scheduler.running:
            self.step()
        return [request.tokens[request.prompt :] for request in requests]


def num_blocks(engine: EngineDir, kv: KvCacheConfig) -> int:
    """Blocks to allocate, one for padding among them; never more than all sequences at their longest could use."""
    pool, most = shapes(engine), engine.build.blocks_per_sequence * engine.build.max_batch_size
    if kv.max_tokens is not None:
        wanted = -(-kv.max_tokens // engine.build.tokens_per_block)
    elif pool.device == "cuda":
        wanted = int(torch.cuda.mem_get_info()[0] * kv.free_gpu_memory_fraction) // pool.bytes_per_block()
    else:
        wanted = int(psutil.virtual_memory().available * CPU_SHARE) // pool.bytes_per_block()
    return max(1, min(wanted, most)) + 1


class AsyncExecutor:
    """The loop in a thread of its own: `async for output in executor.generate(tokens, params)`.

    Leaving the loop early, or cancelling the task, cancels the request: its blocks are free before the next step.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._lock, self._work, self._stop = threading.Lock(), threading.Event(), False
        self._queues: dict[Request, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Output | Exception]]] = {}
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncIterator[Output]:
        """Stream one answer. Raises RequestError at once for a request beyond the limits."""
        request = Request(list(tokens), params)
        queue: asyncio.Queue[Output | Exception] = asyncio.Queue()
        with self._lock:
            self.executor.scheduler.add(request)
            self._queues[request] = (asyncio.get_running_loop(), queue)
        self._work.set()
        try:
            while True:
                output = await queue.get()
                if isinstance(output, Exception):
                    raise output
                yield output
                if output.finish_reason:
                    return
        finally:
            request.cancelled = True
            self._work.set()

    def close(self) -> None:
        """Stop the loop; streams that are still open end with an error."""
        self._stop = True
        self._work.set()
        self._thread.join()
        self._fail(RuntimeError("the engine was shut down while this request ran"))

    def _loop(self) -> None:
        while not self._stop:
            with self._lock:
                try:
                    given = self.executor.step()
                except Exception as error:
                    self._fail(error)
                    given = []
                for request in [r for r in self._queues if r.cancelled]:
                    del self._queues[request]
                idle = not (self.executor.scheduler.waiting or self.executor.scheduler.running)
                if idle:
                    self._work.clear()
            for request, output in given:
                self._send(request, output)
            if idle:
                self._work.wait()

    def _send(self, request: Request, output: Output | Exception) -> None:
        if found := self._queues.get(request):
            loop, queue = found
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, output)

    def _fail(self, error: Exception) -> None:
        """Nothing is lost in silence: whoever waits is told."""
        scheduler = self.executor.scheduler
        for request in [*scheduler.running, *scheduler.waiting]:
            scheduler.finish(request)
        for request in list(self._queues):
            self._send(request, error)
        self._queues.clear()
