"""The loop: plan a step, run it, sample, hand tokens out.

The device is asked for the next step before the tokens of the last are read (`lag`): a step reads its own input from
`Graphs.last`. A request that ends by a stop word has then computed one token too many, which is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from engineroom.engine.directory import EngineDir, open_engine
from engineroom.engine.model import UNKNOWN
from engineroom.engine.runtime.model_runner import Chunk, Graphs, shapes
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.sampling import SamplingParams, logprobs, sample
from engineroom.engine.runtime.scheduler import Policy, Request, Scheduler

CPU_SHARE = 0.2  # of the free memory, for the KV cache, when nothing else is said


@dataclass(frozen=True)
class Output:
    """One token of an answer; `finish_reason` is set with the last: "stop" or "length".

    `AsyncExecutor` tells with the first how long the request waited for its turn, in seconds, and how many tokens of
    its prompt were in the cache.
    """

    token: int
    logprob: float
    finish_reason: str | None = None
    queue_seconds: float | None = None
    cached_tokens: int = 0


@dataclass(frozen=True)
class KvCacheConfig:
    """Names as in TensorRT-LLM's KvCacheConfig. `max_tokens` wins; else a share of the free memory is taken."""

    max_tokens: int | None = None
    free_gpu_memory_fraction: float = 0.9
    enable_block_reuse: bool = True


@dataclass
class Asked:
    """Tokens that the device was asked for in one step, on their way to the host."""

    step: int
    requests: list[Request]
    tokens: Tensor
    logprobs: Tensor | None
    ready: torch.cuda.Event | None

    def read(self) -> list[tuple[int, float]]:
        if self.ready:
            self.ready.synchronize()
        chosen = self.tokens.tolist()
        return list(
            zip(chosen, [0.0] * len(chosen) if self.logprobs is None else self.logprobs.tolist(), strict=True)
        )


class Executor:
    """An engine that serves requests together. `step` is one turn of the loop; not thread-safe by itself."""

    graphs_class = Graphs

    def __init__(
        self,
        engine: EngineDir | str | Path,
        kv: KvCacheConfig | None = None,
        policy: Policy = "guaranteed_no_evict",
        lag: int | None = None,
    ) -> None:
        """`lag`: steps that the host reads behind; 1 on a GPU and 0 on a CPU unless given. Raises EngineError."""
        self.engine = engine if isinstance(engine, EngineDir) else open_engine(engine)
        kv = kv or KvCacheConfig()
        self.graphs = self.graphs_class(self.engine)
        count = num_blocks(self.engine, kv)
        self.blocks = BlockManager(count, self.engine.build.tokens_per_block, kv.enable_block_reuse)
        self.scheduler = Scheduler(self.engine.build, self.blocks, policy)
        self.graphs.allocate(count)
        self.lag = int(self.graphs.device == "cuda") if lag is None else lag
        self.steps = 0
        self._asked: deque[Asked] = deque()

    def step(self) -> list[tuple[Request, Output]]:
        """Ask for one more step of everybody, and give the tokens that are due. Empty when nothing is to do."""
        plan, given = self.scheduler.plan(), []
        self.steps += (busy := bool(plan.context or plan.generation))
        if any(UNKNOWN in r.tokens[r.computed : r.computed + count] for r, count in plan.context):
            given += self._read(self.steps)  # a paused request comes back: its own tokens are its prompt now
        if chunks := [(request, count) for request, count in plan.context if not request.finished]:
            self._context(chunks)
        if many := [request for request in plan.generation if not request.finished]:
            self._generation(many)
        return given + self._read(self.steps - self.lag if busy else self.steps)

    def _context(self, chunks: list[tuple[Request, int]]) -> None:
        logits, tokens = self.graphs.context(
            [
                Chunk(r.tokens[r.computed : r.computed + n], r.computed, r.seat, r.pages.blocks)
                for r, n in chunks
            ]
        )
        for request, count in chunks:
            request.computed += count
            self.blocks.commit(request.pages, request.tokens[: request.computed])
        if done := [row for row, (r, _) in enumerate(chunks) if r.computed == len(r.tokens)]:
            self._choose([chunks[row][0] for row in done], logits[done], tokens[done])

    def _generation(self, many: list[Request]) -> None:
        rows = [(r.tokens[-1], r.computed, r.seat, r.pages.blocks) for r in many]
        logits, tokens = self.graphs.generation(*zip(*rows, strict=True))
        for request in many:
            request.computed += 1
        self._choose(many, logits, tokens)

    def _choose(self, requests: list[Request], logits: Tensor, tokens: Tensor) -> None:
        """Sample on the device and let the tokens travel; on the host they are UNKNOWN until `_read`."""
        params, places = [r.params for r in requests], [len(r.tokens) for r in requests]
        if not all(one.greedy for one in params):
            tokens = sample(logits, tokens, params, [r.seed for r in requests], places)
            self.graphs.remember([r.seat for r in requests], tokens)
        chances = (
            logprobs(logits, tokens).to("cpu", non_blocking=True) if any(p.logprobs for p in params) else None
        )
        there = tokens.to("cpu", non_blocking=True)
        ready = torch.cuda.Event() if tokens.is_cuda else None
        if ready:
            ready.record()
        self._asked.append(Asked(self.steps, requests, there, chances, ready))
        for request in requests:
            request.tokens.append(UNKNOWN)
            request.pending += 1

    def _read(self, until: int) -> list[tuple[Request, Output]]:
        """The tokens of all steps up to number `until`."""
        given = []
        while self._asked and self._asked[0].step <= until:
            asked = self._asked.popleft()
            for request, (token, chance) in zip(asked.requests, asked.read(), strict=True):
                if not request.finished:
                    given.append((request, Output(token, chance, self._receive(request, token))))
        return given

    def _receive(self, request: Request, token: int) -> str | None:
        reason = request.receive(token)
        known = len(request.tokens) - request.pending
        if reason:
            del request.tokens[known:]
            self.scheduler.finish(request)
        elif request.seat is not None and (full := min(known, request.computed)) % self.graphs.size == 0:
            self.blocks.commit(request.pages, request.tokens[:full])
        return reason

    def abandon(self) -> None:
        """Forget all requests: what they held is free, and nobody waits for a token that was asked for."""
        self._asked.clear()
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            self.scheduler.finish(request)

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
