"""Lesson 00's open challenge: the same answers for fewer tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from engineroom.quality.data.glossary import Term, load_terms
from labs.kit.challenge import Challenge, ChallengeResult, Measurement
from labs.preflight.answer import Answerer

CHALLENGE = Challenge("00.challenge", first_bar=1.15)
NUM_TERMS = 10

RequestBuilder = Callable[[str], Mapping[str, Any]]  # a term -> arguments of Answerer.complete


async def judge(answerer: Answerer, build_request: RequestBuilder) -> ChallengeResult:
    """Judge what `build_request` builds for terms that the learner does not see, by the tokens of prompts and answers.

    An answer is good when it contains the first sentence of the term's definition.
    """
    return await CHALLENGE.judge(_measure(answerer, build_request))


async def _measure(answerer: Answerer, build_request: RequestBuilder) -> Measurement:
    terms = random.Random(CHALLENGE.id).sample(load_terms(), NUM_TERMS)
    num_tokens, incomplete = _ask_all(answerer, build_request, terms)
    if incomplete:
        count = f"{len(incomplete)} of {NUM_TERMS} answers lack"
        failure = f"{count} the first sentence of the definition, such as {incomplete[0]}."
        return Measurement(num_tokens, math.nan, "tokens", failure=failure)
    baseline, _ = _ask_all(answerer, lambda name: {"question": f"What is {name}?"}, terms)
    return Measurement(num_tokens, baseline, "tokens")


def _ask_all(answerer: Answerer, build_request: RequestBuilder, terms: list[Term]) -> tuple[int, list[str]]:
    """Return the tokens of all prompts and answers, and the terms whose answer is incomplete."""
    num_tokens, incomplete = 0, list[str]()
    for term in terms:
        completion = answerer.complete(**build_request(term.name))
        num_tokens += completion.prompt_tokens + completion.output_tokens
        if term.short.lower().rstrip(".") not in completion.text.lower():
            incomplete.append(f"the answer about {term.name}, {completion.text[:60]!r}")
    return num_tokens, incomplete
