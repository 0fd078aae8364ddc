"""What lesson 11 measures: steps of the engine with how busy the cores were, and what a profiler costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import spans
from engineroom.profile.ceilings import Ceilings, Device, measure_ceilings
from engineroom.profile.counts import Step
from engineroom.profile.record import QUIET

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class MeasuredStep:
    """A kind of step: its name, what it computes, and its shortest time.

    `utilisation`: the share of the time, from 0 to 1, in which the machine's cores were busy meanwhile, as `top` shows
    it. On a GPU it is that of the host.
    """

    name: str
    step: Step
    seconds: float
    utilisation: float


def highest_ceilings(device: Device, dtype: str, rounds: int = 8) -> Ceilings:
    """The highest ceilings of several measurements: other programs can only lower them. Raises CeilingError."""
    measured = [measure_ceilings(device, [dtype], repeats=1) for _ in range(rounds)]
    return replace(
        measured[0],
        read_bytes_per_s=max(ceilings.read_bytes_per_s for ceilings in measured),
        operations_per_s={dtype: max(ceilings.operations_per_s[dtype] for ceilings in measured)},
        operator_call_s=min(ceilings.operator_call_s for ceilings in measured),
    )


def measure_decode(engine: EngineDir, batch: int, context: int, steps: int = 40) -> MeasuredStep:
    """Steps in which each of `batch` sequences gets one token; `context` is the mean length of a sequence then.

    Raises RequestError if the engine's limits are smaller.
    """
    first = context - (WARM_UP_STEPS + steps) // 2
    step = decode_step(engine, batch, first, WARM_UP_STEPS + steps)
    for _ in range(WARM_UP_STEPS):
        step()
    seconds, utilisation = _measure(step, steps)
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


@dataclass(frozen=True)
class ProfilerCost:
    """Seconds of one piece of work `without` and `with_profiler`, in many runs, and the events that one run records."""

    without: list[float]
    with_profiler: list[float]
    events: float

    @property
    def ratio(self) -> float:
        """How many times longer an undisturbed run takes under the profiler."""
        return undisturbed(self.with_profiler) / undisturbed(self.without)


def undisturbed(seconds: Sequence[float]) -> float:
    """The time that a tenth of the runs beat: other programs disturbed it little, and it is no lucky exception."""
    return float(np.percentile(seconds, 10))


def profiler_cost(run: Callable[[], object], rounds: int = 10, calls: int = 4) -> ProfilerCost:
    """Call `run` without and under PyTorch's profiler in turns, so that a busy minute hits both alike."""
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    without: list[float] = []
    with_profiler: list[float] = []
    events = 0
    for _ in range(rounds):
        run()
        without += [_measure(run, 1)[0] for _ in range(calls)]
        with profile(activities=[ProfilerActivity.CPU]) as profiler, spans(record_function):
            run()
            with_profiler += [_measure(run, 1)[0] for _ in range(calls)]
        events = len(profiler.events() or [])
    return ProfilerCost(without, with_profiler, events / (1 + calls))


def decode_step(engine: EngineDir, batch: int, context: int, steps: int) -> Callable[[], object]:
    """A function that computes one decode step of the whole batch at each call, `steps` times.

    Prompts that do not fit into one step together are computed in several, so the first sequences are a few tokens
    longer than `context`. Raises RequestError if the engine's limits are smaller.
    """
    context_steps = batch + batch * context // engine.limits.max_num_tokens  # at most
    executor = _executor(engine, batch, [context] * batch, context_steps + steps)
    while executor.scheduler.waiting or any(
        not request.output_token_ids for request in executor.scheduler.running
    ):
        executor.step()
    return executor.step


def _measure(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The quickest of `repeats` runs in seconds, which other programs disturbed least, and how busy the cores were."""
    samples: list[float] = []
    psutil.cpu_percent()  # the next call says how busy they were since this one
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - began)
    return min(samples), psutil.cpu_percent() / 100


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
