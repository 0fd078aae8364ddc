"""Send requests the two ways the world does: a fixed number of users (closed loop), or arrivals (open loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineroom.kit.process import Server
from engineroom.load.client import Prompt, Trace, session, stream


def random_prompts(n: int, tokens: int, seed: int = 0, vocab: range = range(300, 4000)) -> list[list[int]]:
    """``n`` prompts of exactly ``tokens`` random token ids: no two share a prefix, so no cache helps."""
    draw = np.random.default_rng(seed)
    return draw.integers(vocab.start, vocab.stop, (n, tokens)).tolist()


async def closed_loop(
    server: Server,
    prompts: Sequence[Prompt],
    max_tokens: int,
    users: int,
    *,
    model: str = "course",
    **body: Any,
) -> list[Trace]:
    """``users`` clients, each sending its next request as soon as it has its answer; traces in order of prompts."""
    if users < 1:
        raise ValueError(f"users must be 1 or more, not {users}.")
    waiting = asyncio.Semaphore(users)
    async with session(server) as http:

        async def one(prompt: Prompt) -> Trace:
            async with waiting:
                return await stream(http, model, prompt, max_tokens, **body)

        return await asyncio.gather(*map(one, prompts))


async def open_loop(
    server: Server, prompts: Sequence[Prompt], max_tokens: int, rate: float, *, model: str = "course",
    seed: int = 0, **body: Any,
) -> list[Trace]:  # fmt: skip
    """Requests arrive at random, ``rate`` a second on average (Poisson), however slow the answers are."""
    if not rate > 0:
        raise ValueError(f"rate must be above 0 requests per second, not {rate}.")
    due = np.random.default_rng(seed).exponential(1 / rate, len(prompts)).cumsum()
    async with session(server) as http:
        begin = time.perf_counter()

        async def one(prompt: Prompt, at: float) -> Trace:
            await asyncio.sleep(begin + at - time.perf_counter())
            return await stream(http, model, prompt, max_tokens, **body)

        return await asyncio.gather(*map(one, prompts, due))
