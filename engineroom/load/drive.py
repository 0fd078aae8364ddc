"""Two ways to send requests: from a fixed number of users (closed loop), or at random times (open loop)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engineroom.kit.process import Server
from engineroom.load.client import Prompt, session, stream
from engineroom.load.errors import LoadError
from engineroom.load.trace import Trace


def random_prompts(n: int, tokens: int, seed: int = 0, vocab: range = range(300, 4000)) -> list[list[int]]:
    """``n`` prompts of exactly ``tokens`` random token ids. No two share a prefix, so prefix caching has no effect."""
    rng = np.random.default_rng(seed)
    return rng.integers(vocab.start, vocab.stop, (n, tokens)).tolist()


async def closed_loop(
    server: Server,
    prompts: Sequence[Prompt],
    max_tokens: int,
    users: int,
    *,
    model: str = "course",
    **body: Any,
) -> list[Trace]:
    """Send the prompts as ``users`` clients, each of which waits for its answer before its next request.

    The traces are in the order of the prompts. Raises LoadError when ``users`` is below 1.
    """
    if users < 1:
        raise LoadError(f"users must be 1 or more, not {users}.")
    idle_users = asyncio.Semaphore(users)
    async with session(server) as http:

        async def send(prompt: Prompt) -> Trace:
            async with idle_users:
                return await stream(http, model, prompt, max_tokens, **body)

        return await asyncio.gather(*map(send, prompts))


async def open_loop(
    server: Server, prompts: Sequence[Prompt], max_tokens: int, rate: float, *, model: str = "course",
    seed: int = 0, **body: Any,
) -> list[Trace]:  # fmt: skip
    """Send requests at random times, ``rate`` per second on average (Poisson), however slow the answers are.

    The traces are in the order of the prompts. Raises LoadError when ``rate`` is not above 0.
    """
    if not rate > 0:
        raise LoadError(f"rate must be above 0 requests per second, not {rate}.")
    offsets = (
        np.random.default_rng(seed).exponential(1 / rate, len(prompts)).cumsum()
    )  # seconds after the start
    async with session(server) as http:
        start = time.perf_counter()

        async def send(prompt: Prompt, offset: float) -> Trace:
            await asyncio.sleep(start + offset - time.perf_counter())
            return await stream(http, model, prompt, max_tokens, **body)

        return await asyncio.gather(*map(send, prompts, offsets))
