"""Streams of tokens from Triton as the front door asks for them, for the tests of load, cancels and kills."""

from __future__ import annotations

import asyncio
import time

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton

STREAMS = 200
PROMPTS = [[300 + n, 301, 302] for n in range(5)]
LONG = SamplingParams(max_tokens=200)


def backend(triton: Triton) -> TritonBackend:
    return TritonBackend(triton.grpc, triton.url, triton.metrics)


def settled(triton: Triton) -> tuple[float, float, float]:
    """(running, waiting, share of blocks in use) when all are zero, or after a minute; they are not told at once."""
    for _ in range(600):
        load = backend(triton).load()
        figures = load.running, load.waiting, load.kv_cache_usage
        if not any(figures):
            break
        time.sleep(0.1)
    return figures


async def ask(
    one: TritonBackend, number: int, params: SamplingParams, patience: float | None
) -> str | list[int]:
    """The tokens, or how it ended instead."""
    tokens: list[int] = []
    try:
        async with asyncio.timeout(patience):
            async for output in one.generate(PROMPTS[number % 5], params):
                tokens.append(output.token)
    except TimeoutError:
        return "cancelled"
    except (EngineStopped, QueueFull) as error:
        return type(error).__name__
    return tokens
