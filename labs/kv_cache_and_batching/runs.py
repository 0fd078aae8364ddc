"""What lesson 03 runs: vLLM's log of its KV cache, static batching, several answers to one prompt, counted requests."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.block_allocator import BlockAllocator, RefCountAllocator
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.process import Server
from engineroom.load.client import fire
from engineroom.load.trace import Trace
from engineroom.metrics.prometheus import scrape
from labs.kit.replay import Replay

LOG_LINES = 1000
COUNT_SECONDS = 30


def kv_cache_lines(server: Server) -> list[str]:
    """The messages in vLLM's log about the size of its KV cache, without time, level and source."""
    messages = [line.split("] ", 1)[-1] for line in server.logs(LOG_LINES).splitlines()]
    return [message for message in messages if re.search(r"KV cache size|Overriding num_gpu_blocks", message)]


def one_batch_at_a_time(_request: Request, running: Sequence[Request], _block_manager: BlockManager) -> bool:
    """Static batching: a request starts only together with all others of its batch."""
    return not any(other.num_computed_tokens for other in running)


def count_idle_slots(replay: Replay, slots: int) -> int:
    """Slots in which nothing was computed, summed over all steps."""
    return sum(slots - step.batch_size for step in replay.steps)


@dataclass(frozen=True)
class Branches:
    """Several sampled answers to one prompt: `num_blocks` were in use at most, and `num_copied_blocks` were copied."""

    answers: list[list[int]]
    num_blocks: int
    num_copied_blocks: int


def branch(
    engine: EngineDir,
    prompt: Sequence[int],
    seeds: Sequence[int],
    max_tokens: int,
    make_block_allocator: Callable[[int], BlockAllocator] = RefCountAllocator,
) -> Branches:
    """Compute a prompt once and fork it after its first token, one sampled answer for each seed.

    Raises RequestError if the engine has too few slots or blocks for them.
    """
    params = [SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=seed) for seed in seeds]
    executor = Executor(
        engine, KvCacheConfig(enable_block_reuse=False), overlap=0, make_block_allocator=make_block_allocator
    )
    parent = Request(list(prompt), params[0])
    executor.scheduler.add(parent)
    while not parent.output_token_ids:
        executor.step()
    requests = [parent, *(executor.scheduler.fork(parent, fork_params) for fork_params in params[1:])]
    block_manager = executor.block_manager
    num_blocks = 0
    while executor.scheduler.has_requests:
        executor.step()
        num_blocks = max(num_blocks, block_manager.num_blocks - block_manager.num_free_blocks)
    answers = [request.token_ids[len(prompt) :] for request in requests]
    return Branches(answers, num_blocks, block_manager.num_copied_blocks)


def max_concurrent_streams(traces: Sequence[Trace]) -> int:
    """The most requests that were between their first and their last token at one moment."""
    events = [(trace.arrivals[0], 1) for trace in traces] + [(trace.arrivals[-1], -1) for trace in traces]
    running = max_running = 0
    for _, change in sorted(events):
        running += change
        max_running = max(max_running, running)
    return max_running


def waits_for_a_block(traces: Sequence[Trace]) -> int:
    """Requests that got their first token only after another request had got its last one."""
    first_end = min(trace.arrivals[-1] for trace in traces)
    return sum(trace.arrivals[0] > first_end for trace in traces)


@dataclass(frozen=True)
class CountedRequest:
    """One request, alone on vLLM, as the server counts it.

    `computed_tokens` and `cached_tokens` of its prompt; `steps`: how many steps the server ran for it.
    """

    trace: Trace
    computed_tokens: int
    cached_tokens: int
    steps: int


async def send_counted(
    server: Server, prompt: Sequence[int], max_tokens: int, model: str, **body: Any
) -> CountedRequest:
    """Send one request to an idle vLLM and read its counters before and after.

    Raises TimeoutError if the server has not counted the request within COUNT_SECONDS after its last token.
    """
    before = scrape(server)
    traces = await fire(server, [prompt], max_tokens, model=model, ignore_eos=True, **body)
    async with asyncio.timeout(COUNT_SECONDS):
        change = scrape(server) - before
        while change["request_success_total"] < 1:
            await asyncio.sleep(0.02)
            change = scrape(server) - before
    cached_tokens = int(change["prefix_cache_hits_total"])
    computed_tokens = int(change["prefix_cache_queries_total"]) - cached_tokens
    steps = int(change["iteration_tokens_total_count"])
    return CountedRequest(traces[0], computed_tokens, cached_tokens, steps)
