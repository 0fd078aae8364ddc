"""What lesson 11 measures: steps of the engine with how busy the cores were, and what a profiler costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.profile.counts import Step

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class MeasuredStep:
    """A kind of step: its name, what it computes, and its median time.

    `utilisation`: the share of the time, from 0 to 1, in which the machine's cores were busy meanwhile, as `top` shows
    it. On a GPU it is that of the host.
    """

    name: str
    step: Step
    seconds: float
    utilisation: float


def measure_decode(engine: EngineDir, batch: int, context: int, steps: int = 40) -> MeasuredStep:
    """Steps in which each of `batch` sequences gets one token; `context` is the mean length of a sequence then.

    Raises RequestError if the engine's limits are smaller.
    """
    first = context - (WARM_UP_STEPS + steps) // 2
    executor = _executor(engine, batch, [first] * batch, WARM_UP_STEPS + steps + 2)
    while executor.scheduler.waiting or any(
        not request.output_token_ids for request in executor.scheduler.running
    ):
        executor.step()
    for _ in range(WARM_UP_STEPS):
        executor.step()
    seconds, utilisation = _measure(executor.step, steps)
    executor.abort_all()
    return MeasuredStep(
        f"decode, batch {batch}", Step.generation([context - 1] * batch), seconds, utilisation
    )


def measure_prefill(engine: EngineDir, prompt: int, repeats: int = 5) -> MeasuredStep:
    """The step that computes a whole prompt; raises RequestError if it does not fit into one step."""
    executor = _executor(engine, 1, [], 1)

    def prefill() -> None:
        executor.scheduler.add(Request(_prompt(engine, prompt), SamplingParams(max_tokens=1)))
        executor.step()

    prefill()
    seconds, utilisation = _measure(prefill, repeats)
    return MeasuredStep(f"prefill, {prompt} tokens", Step.context([prompt]), seconds, utilisation)


def cost_of(run: Callable[[], object], profiled: Callable[[], object], rounds: int = 7) -> list[float]:
    """How many times longer `profiled` takes than `run`, once for each round; they take turns."""
    run()
    profiled()
    ratios = []
    for number in range(rounds):
        pair = (run, profiled) if number % 2 == 0 else (profiled, run)
        seconds = {function: _measure(function, 1)[0] for function in pair}
        ratios.append(seconds[profiled] / seconds[run])
    return ratios


def _measure(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The median of `repeats` runs in seconds, and how busy the machine's cores were meanwhile."""
    samples: list[float] = []
    psutil.cpu_percent()  # the next call says how busy they were since this one
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - began)
    return statistics.median(samples), psutil.cpu_percent() / 100


def _executor(engine: EngineDir, batch: int, prompts: Sequence[int], max_tokens: int) -> Executor:
    """An executor with waiting requests of these prompt lengths, in a KV cache that holds them all."""
    block = engine.limits.tokens_per_block
    lengths = [length + max_tokens + block for length in prompts] or [engine.limits.max_seq_len]
    executor = Executor(
        engine, KvCacheConfig(sum(lengths) + batch * block, enable_block_reuse=False), overlap=0
    )
    for seed, length in enumerate(prompts):
        request = Request(_prompt(engine, length, seed), SamplingParams(max_tokens=max_tokens))
        executor.scheduler.check(request)
        executor.scheduler.add(request)
    return executor


def _prompt(engine: EngineDir, length: int, seed: int = 0) -> list[int]:
    """Token ids at random; how long a step takes does not depend on them."""
    token_ids: list[int] = np.random.default_rng(seed).integers(2, engine.model.vocab_size, length).tolist()
    return token_ids
