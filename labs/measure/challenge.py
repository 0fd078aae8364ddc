"""Lesson 02's open challenge: a shorter p99 of ITL beside long prompts, by vLLM's flags alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engineroom import load
from engineroom.kit.process import Server
from labs.kit.challenge import Challenge, ChallengeResult, Measurement
from labs.kit.duel import RoundResult, duel

CHALLENGE = Challenge("02.challenge", first_bar=1.2)
NUM_READERS = 4
READER_TOKENS = 160
NUM_LONG_PROMPTS = 4
LONG_PROMPT_TOKENS = 1500
MAX_CHANGED_TEXTS = 1  # rounding may change the text of an answer when a prompt is computed in chunks


async def judge(model: str, flags: Mapping[str, Any]) -> ChallengeResult:
    """Judge `flags` of `vllm serve` by the p99 of ITL of four readers, in turns with vLLM's default flags.

    While the readers' answers are generated, four prompts of 1,500 tokens arrive one after the other.
    """
    return await CHALLENGE.judge(_measure(model, flags))


async def _measure(model: str, flags: Mapping[str, Any]) -> Measurement:
    readers = [f"What is {term}?" for term in ("TTFT", "goodput", "prefill", "latency")[:NUM_READERS]]
    chats = [[{"role": "user", "content": question}] for question in readers]

    async def read_beside_long_prompts(server: Server) -> RoundResult:
        options = {"model": model, "temperature": 0, "ignore_eos": True}
        reading = asyncio.create_task(load.fire(server, chats, READER_TOKENS, **options))
        prompts = load.random_prompts(NUM_LONG_PROMPTS, LONG_PROMPT_TOKENS, seed=next(seeds))
        await load.closed_loop(server, prompts, 1, users=1, **options)
        traces = await reading
        gaps = [gap for trace in traces for gap in load.itl(trace)]
        return load.percentile(gaps, 99), [trace.text for trace in traces]

    seeds = iter(range(1000))  # a new seed for each call: no prompt is found in a prefix cache
    result = await duel(model, {}, flags, read_beside_long_prompts)
    failure = ""
    if result.num_changed_texts() > MAX_CHANGED_TEXTS:
        failure = f"{result.num_changed_texts()} of {len(readers)} answers differ from the baseline's."
    return Measurement(1000 * result.attempt, 1000 * result.baseline, "ms", failure=failure)
