"""Token streams from Triton, as the OpenAI frontend requests them, for the tests of load, cancellation and kills."""

from __future__ import annotations

import asyncio
import time

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton

NUM_STREAMS = 200
PROMPTS = [[300 + index, 301, 302] for index in range(5)]
LONG = SamplingParams(max_tokens=200)


def backend(triton: Triton) -> TritonBackend:
    return TritonBackend(triton.grpc, triton.url, triton.metrics)


def settled(triton: Triton) -> tuple[float, float, float]:
    """(running, waiting, share of blocks in use) when all are zero, or after a minute, since the gauges lag behind."""
    deadline = time.monotonic() + 60
    while True:
        stats = backend(triton).stats()
        values = stats.num_running_requests, stats.num_waiting_requests, stats.kv_cache_usage
        if not any(values) or time.monotonic() > deadline:  # clock: a limit for what hangs
            return values
        time.sleep(0.1)


async def generate(
    backend: TritonBackend, index: int, params: SamplingParams, timeout: float | None
) -> str | list[int]:
    """The output token ids of prompt `index` modulo 5, or how the stream ended instead."""
    token_ids: list[int] = []
    try:
        async with asyncio.timeout(timeout):
            async for output in backend.generate(PROMPTS[index % len(PROMPTS)], params):
                token_ids.append(output.token_id)  # noqa: PERF401 (a comprehension would lose them at the timeout)
    except TimeoutError:
        return "cancelled"
    except (EngineStopped, QueueFull) as error:
        return type(error).__name__
    return token_ids
