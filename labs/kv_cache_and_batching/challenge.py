"""The open challenge of lesson 03: choose the order of requests so that the prefix cache saves the most prompt tokens.

The judge serves the trace on the engine and counts the prompt tokens that the engine computes. It counts no seconds, so
the result is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engineroom.engine.directory import EngineDir
from labs.kit.challenge import Challenge, Measurement
from labs.kit.replay import Arrival, Replay, replay
from labs.kit.values import to_list

CHALLENGE = Challenge("03.challenge", first_bar=1.3)
SLOTS, KV_TOKENS, ANSWER = 4, 640, 12
SYSTEM_TOKENS = (160, 128, 128, 96, 96)  # of the system prompts
REQUESTS_PER_SYSTEM_PROMPT = 5

Order = Callable[[list[list[int]]], Sequence[int]]


def prompts(vocab_size: int) -> list[list[int]]:
    """25 prompts in the order of arrival: each begins with one of five system prompts."""
    draw = np.random.default_rng(3)
    token_ids = [draw.integers(2, vocab_size, length).tolist() for length in SYSTEM_TOKENS]
    arrivals = draw.permutation(np.repeat(np.arange(len(SYSTEM_TOKENS)), REQUESTS_PER_SYSTEM_PROMPT))
    return [
        token_ids[index] + draw.integers(2, vocab_size, int(draw.integers(8, 28))).tolist()
        for index in arrivals
    ]


def serve(engine: EngineDir, in_order: Sequence[Sequence[int]]) -> Replay:
    """Serve the prompts, all of which wait from the first step on."""
    trace = [Arrival(list(prompt), ANSWER) for prompt in in_order]
    return replay(engine, trace, kv_tokens=KV_TOKENS, reuse=True, max_batch_size=SLOTS)


def computed_tokens(run: Replay) -> int:
    """Prompt tokens that the engine computed; those that it found in the cache are not among them."""
    return sum(sum(step.context.values()) for step in run.steps)


async def measure(engine: EngineDir, order: Order) -> Measurement:
    """Serve the trace as it arrived and in the learner's order, and compare the prompt tokens computed."""
    arrived = prompts(engine.model.vocab_size)
    indices = to_list(order([list(prompt) for prompt in arrived]))
    failure = _complaint(indices, len(arrived))
    if failure:
        return Measurement(math.nan, math.nan, "prompt tokens", failure=failure)
    indices = [int(index) for index in indices or []]
    baseline = serve(engine, arrived)
    run = serve(engine, [arrived[index] for index in indices])
    answers = dict(zip(indices, run.answers, strict=True))
    num_different = sum(answers[index] != answer for index, answer in enumerate(baseline.answers))
    if num_different and engine.model.dtype == "float32":
        failure = f"{num_different} answers differ from those in the order of arrival."
    return Measurement(computed_tokens(run), computed_tokens(baseline), "prompt tokens", failure=failure)


def _complaint(indices: list[Any] | None, num_prompts: int) -> str:
    if indices is None:
        return "`order` must return a list of indices."
    if sorted(map(str, indices)) != sorted(map(str, range(num_prompts))):
        return f"`order` must return each index from 0 to {num_prompts - 1} once: every request is served."
    return ""
