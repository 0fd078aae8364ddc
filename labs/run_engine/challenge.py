"""Lesson 06's open challenge: an admission rule with a shorter mean TTFT than GUARANTEED_NO_EVICT."""

from __future__ import annotations

import statistics

import numpy as np

from engineroom.engine.directory import EngineDir
from engineroom.load import workload
from labs.kit.challenge import Challenge, ChallengeResult, Measurement
from labs.kit.replay import AdmissionRule, Arrival, Replay, replay

CHALLENGE = Challenge("06.challenge", first_bar=1.2)
KV_TOKENS = 512
MAX_CONTEXT_RATIO = 1.25  # the most context that may be computed, relative to the baseline


async def judge(engine: EngineDir, rule: AdmissionRule) -> ChallengeResult:
    """Judge a rule by the mean TTFT, in steps, of a trace that the rule does not know, in a small KV cache.

    The baseline is the policy guaranteed_no_evict. The answers must stay the same, and pauses may not raise the
    number of context tokens by more than a quarter.
    """
    return await CHALLENGE.judge(_measure(engine, rule))


async def _measure(engine: EngineDir, rule: AdmissionRule) -> Measurement:
    trace = hidden_trace(engine)
    run = replay(engine, trace, rule=rule, kv_tokens=KV_TOKENS)
    baseline = replay(engine, trace, kv_tokens=KV_TOKENS)
    ratio = _context_tokens(run) / _context_tokens(baseline)
    failure = ""
    if engine.model.dtype == "float32" and run.answers != baseline.answers:
        failure = "Some answers changed."
    elif ratio > MAX_CONTEXT_RATIO:
        failure = (
            f"Requests were paused {run.num_preemptions} times: the engine computed {ratio:.2f} times the baseline's "
            f"context; {MAX_CONTEXT_RATIO} is the limit."
        )
    ttft, baseline_ttft = statistics.mean(run.ttft_steps), statistics.mean(baseline.ttft_steps)
    return Measurement(ttft, baseline_ttft, "steps of mean TTFT", failure=failure)


def hidden_trace(engine: EngineDir) -> list[Arrival]:
    """24 requests within the engine's limits, one every other step."""
    limits = engine.limits
    turns = workload.chat(requests=24, prompt=40, output=50, spread=0.5, seed=61)
    draw = np.random.default_rng(61)
    return [
        Arrival(
            draw.integers(2, engine.model.vocab_size, min(turn.prompt, limits.max_input_len)).tolist(),
            min(turn.output, limits.max_seq_len - limits.max_input_len),
            2 * index,
        )
        for index, turn in enumerate(turns)
    ]


def _context_tokens(run: Replay) -> int:
    return sum(sum(step.context.values()) for step in run.steps)
