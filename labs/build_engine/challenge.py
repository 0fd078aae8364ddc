"""Lesson 05's open challenge: serve a trace in as little memory as possible, with latencies almost as short."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engineroom.engine.directory import EngineDir
from engineroom.kit.errors import UserError
from engineroom.load.workload import Turn
from labs.kit.challenge import Challenge, ChallengeResult, Measurement
from labs.kit.memory import activation_bytes, kv_bytes_per_token, max_kv_cache_bytes
from labs.kit.replay import Arrival, Replay, replay

CHALLENGE = Challenge("05.challenge", first_bar=1.2)
NAMES = ("max_batch_size", "max_num_tokens", "kv_tokens")
NUM_REQUESTS = 40
MAX_WAIT_RATIO = 1.25  # the longest mean end-to-end latency, in steps, relative to the baseline


class PlanError(UserError, ValueError):
    """A plan without the three numbers; the message names what is wrong."""


async def judge(engine: EngineDir, turns: Sequence[Turn], plan: Mapping[str, Any]) -> ChallengeResult:
    """Judge a plan, whole numbers for max_batch_size, max_num_tokens and kv_tokens, by the bytes that it needs.

    The bytes are those of the KV cache and of the activations. The baseline has the engine's own limits and a cache in
    which every slot has room for the longest request. The trace's first 40 requests arrive, one every other step. Their
    mean end-to-end latency, in steps, may be at most a quarter longer than the baseline's.
    """
    return await CHALLENGE.judge(_measure(engine, turns, plan))


async def _measure(engine: EngineDir, turns: Sequence[Turn], plan: Mapping[str, Any]) -> Measurement:
    numbers = _whole_numbers(plan, engine)
    kv_tokens = numbers["kv_tokens"]
    limits = replace(
        engine.limits, max_batch_size=numbers["max_batch_size"], max_num_tokens=numbers["max_num_tokens"]
    )
    kv_bytes = kv_tokens * kv_bytes_per_token(engine.model, engine.model.dtype)
    num_bytes = kv_bytes + activation_bytes(engine.model, limits, engine.model.dtype)
    largest = max_kv_cache_bytes(engine.model, engine.limits, engine.model.dtype)
    baseline_bytes = largest + activation_bytes(engine.model, engine.limits, engine.model.dtype)

    trace = arrivals(engine, turns)
    run = replay(
        engine,
        trace,
        kv_tokens=kv_tokens,
        max_batch_size=limits.max_batch_size,
        max_num_tokens=limits.max_num_tokens,
    )
    baseline = replay(engine, trace)
    ratio = _mean_e2e_steps(run) / _mean_e2e_steps(baseline)
    failure = ""
    if ratio > MAX_WAIT_RATIO:
        failure = f"Requests took {ratio:.2f} times as many steps as in the baseline; {MAX_WAIT_RATIO} is the limit."
    return Measurement(num_bytes / 1e6, baseline_bytes / 1e6, "MB", failure=failure)


def _whole_numbers(plan: Mapping[str, Any], engine: EngineDir) -> dict[str, int]:
    if not isinstance(plan, Mapping) or set(plan) != set(NAMES):
        raise PlanError(f"The plan must be a dictionary with {', '.join(NAMES)}.")
    for name, value in plan.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise PlanError(f"`{name}` must be a whole number from 1 up, not {value!r}.")
        largest = getattr(engine.limits, name, None)
        if largest and value > largest:
            raise PlanError(f"`{name}` {value} is more than the engine was built for: {largest}.")
    return {name: int(value) for name, value in plan.items()}


def arrivals(engine: EngineDir, turns: Sequence[Turn]) -> list[Arrival]:
    """The first 40 requests of a trace with random token ids; one arrives every other step."""
    draw = np.random.default_rng(5)
    return [
        Arrival(draw.integers(2, engine.model.vocab_size, turn.prompt).tolist(), turn.output, 2 * index)
        for index, turn in enumerate(turns[:NUM_REQUESTS])
    ]


def _mean_e2e_steps(run: Replay) -> float:
    ends = [run.token_steps(index)[-1] - arrival.step for index, arrival in enumerate(run.trace)]
    return statistics.mean(ends)
