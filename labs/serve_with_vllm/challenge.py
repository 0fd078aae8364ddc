"""Lesson 01's open challenge: more tokens per second for sixteen users, by vLLM's flags alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engineroom import load
from engineroom.kit.process import Server
from labs.kit.challenge import Challenge, ChallengeResult, Measurement
from labs.kit.duel import RoundResult, duel

CHALLENGE = Challenge("01.challenge", first_bar=1.2)
BASELINE = {"max_num_seqs": 4}
MAX_CHANGED_TEXTS = 1  # rounding may change the text of an answer when the batch size changes

Chat = Sequence[dict[str, str]]


async def judge(model: str, questions: Sequence[Chat], flags: Mapping[str, Any]) -> ChallengeResult:
    """Judge `flags` of `vllm serve` by tokens per second: all questions at once, in turns with `--max-num-seqs 4`."""
    return await CHALLENGE.judge(_measure(model, questions, flags))


async def _measure(model: str, questions: Sequence[Chat], flags: Mapping[str, Any]) -> Measurement:
    async def ask_all(server: Server) -> RoundResult:
        traces = await load.fire(server, questions, 96, model=model, temperature=0)
        return load.throughput(traces), [trace.text for trace in traces]

    result = await duel(model, BASELINE, flags, ask_all)
    failure = ""
    if result.num_changed_texts() > MAX_CHANGED_TEXTS:
        failure = f"{result.num_changed_texts()} of {len(questions)} answers differ from the baseline's."
    return Measurement(result.attempt, result.baseline, "tokens/s", lower_is_better=False, failure=failure)
