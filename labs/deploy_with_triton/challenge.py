"""Lesson 10's open challenge: many readers through your own program in fewer steps of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tritonclient.grpc.aio import InferenceServerClient

from engineroom.triton.server import Triton
from labs.deploy_with_triton.requests import engine_steps, infer, num_instances, wait_until_idle
from labs.kit.challenge import Challenge, ChallengeResult, Measurement

CHALLENGE = Challenge("10.challenge", first_bar=1.3)
BASELINE_MODEL = "in_order"
MAX_INSTANCES = 2
MAX_TOKENS = 24


async def judge(
    triton: Triton, client: InferenceServerClient, model: str, prompts: Sequence[str]
) -> ChallengeResult:
    """Judge a loaded model with the inputs of `in_order` by the engine's steps for prompts that arrive together.

    The baseline has one request in the engine at a time, as `in_order` with one instance does. The texts must be the
    same, and the model may have at most two instances: each one is a process.
    """
    return await CHALLENGE.judge(_measure(triton, client, model, prompts))


async def _measure(
    triton: Triton, client: InferenceServerClient, model: str, prompts: Sequence[str]
) -> Measurement:
    baseline, expected = await _serve(triton, client, BASELINE_MODEL, prompts, together=False)
    steps, texts = await _serve(triton, client, model, prompts, together=True)
    instances = await num_instances(client, model)
    failure = ""
    if instances > MAX_INSTANCES:
        failure = (
            f"{model} has {instances} instances; {MAX_INSTANCES} is the limit. Improve the program instead."
        )
    elif texts != expected:
        num_different = sum(text != other for text, other in zip(texts, expected, strict=True))
        failure = f"{num_different} of {len(prompts)} texts differ from those of {BASELINE_MODEL}."
    return Measurement(steps, baseline, "steps", failure=failure)


async def _serve(
    triton: Triton, client: InferenceServerClient, model: str, prompts: Sequence[str], together: bool
) -> tuple[int, list[str]]:
    """Return the engine's steps for all requests, and the text of each."""
    await wait_until_idle(triton)
    before = engine_steps(triton)
    requests = [infer(client, model, text_input=prompt, max_tokens=MAX_TOKENS) for prompt in prompts]
    responses = await asyncio.gather(*requests) if together else [await request for request in requests]
    await wait_until_idle(triton)
    for response in responses:
        if response.error:
            raise RuntimeError(f"{model} answered with an error: {response.error}")
    return engine_steps(triton) - before, [response.text for response in responses]
