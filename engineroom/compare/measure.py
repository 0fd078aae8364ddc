"""Rounds of the same requests through every engine in turn, so that a busy minute of the machine affects them all."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from engineroom.compare.engine_process import EngineProcess
from engineroom.compare.engines import ENGINES
from engineroom.compare.settings import CompareError, EngineSettings, TokenIds
from engineroom.compare.workload import BatchWorkload

Log = Callable[[str], object]

# Seconds to wait after an engine's turn: vLLM's worker polls for one second after its last step (busy_loop_s in
# shm_broadcast.py).
SETTLE_SECONDS = {"vllm": 1.5}


class RoundSample(NamedTuple):
    """One engine in one round: seconds until the last stream had its first token; tokens per second of all streams."""

    ttft: float
    rate: float


@dataclass
class Comparison:
    """What was measured of each engine.

    By engine: `start_seconds` of each start of its process, up to the first token; `load_seconds`, the engine's own
    part of the last start; `peak_memory`, its peak resident memory in bytes. By workload and engine, one sample for
    each round: `ttft` in seconds and `rates` in output tokens per second, as in RoundSample.
    """

    start_seconds: dict[str, list[float]] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    ttft: dict[BatchWorkload, dict[str, list[float]]] = field(default_factory=dict)
    rates: dict[BatchWorkload, dict[str, list[float]]] = field(default_factory=dict)

    def ratios(self, workload: BatchWorkload, baseline: str) -> dict[str, list[float]]:
        """The rate of each other engine over the rate of `baseline` in the same round."""
        rates = self.rates[workload]
        return {
            name: [rate / base for rate, base in zip(samples, rates[baseline], strict=True)]
            for name, samples in rates.items()
            if name != baseline
        }

    def median_rates(self, workload: BatchWorkload) -> dict[str, float]:
        return {name: statistics.median(samples) for name, samples in self.rates[workload].items()}


def compare(
    settings: EngineSettings,
    workloads: Iterable[BatchWorkload],
    engines: Sequence[str] = ("aot", "vllm"),
    *,
    rounds: int = 5,
    starts: int = 1,
    vocab_size: int = 4096,
    log: Log = print,
) -> Comparison:
    """Start every engine `starts` times, then run each workload `rounds` times on all of them in turn.

    A first round warms the engines up and is not counted. Prompts are random token ids below `vocab_size`. Raises
    CompareError for an unknown engine, for no rounds, and for an engine whose answers have the wrong length.
    """
    check_engine_names(engines)
    if rounds < 1:
        raise CompareError(
            f"{rounds} rounds measure nothing. Take 5 or more, so that the median means something."
        )
    comparison = Comparison()
    with ExitStack() as stack:
        processes = []
        for name in engines:
            for _ in range(starts - 1):
                _start(name, settings, comparison, log).stop()
            processes.append(stack.enter_context(_start(name, settings, comparison, log)))
        for workload in workloads:
            _run_workload(processes, workload, rounds, vocab_size, comparison)
            medians = [f"{name} {rate:.1f}" for name, rate in comparison.median_rates(workload).items()]
            log(f"{workload}: {', '.join(medians)} tokens/s")
        comparison.peak_memory = {process.name: process.peak_memory() for process in processes}
    return comparison


def check_engine_names(engines: Iterable[str]) -> None:
    """Raises CompareError for an unknown engine."""
    unknown = sorted(set(engines) - ENGINES.keys())
    if unknown:
        raise CompareError(f"Unknown engine {', '.join(unknown)}. Choose from {', '.join(ENGINES)}.")


def _start(name: str, settings: EngineSettings, comparison: Comparison, log: Log) -> EngineProcess:
    process = EngineProcess(name, settings)
    comparison.start_seconds.setdefault(name, []).append(process.start_seconds)
    comparison.load_seconds[name] = process.load_seconds
    log(f"{name}: first token {process.start_seconds:.1f} s after its start")
    return process


def _run_workload(
    processes: list[EngineProcess],
    workload: BatchWorkload,
    rounds: int,
    vocab_size: int,
    comparison: Comparison,
) -> None:
    samples: dict[str, list[RoundSample]] = {process.name: [] for process in processes}
    for round_index in range(rounds + 1):
        generator = random.Random(f"{workload} {round_index}")
        prompts = [
            [generator.randrange(vocab_size) for _ in range(workload.input_len)]
            for _ in range(workload.streams)
        ]
        for process in processes:
            samples[process.name].append(_run_turn(process, workload, prompts))
    comparison.ttft[workload] = {name: [turn.ttft for turn in turns[1:]] for name, turns in samples.items()}
    comparison.rates[workload] = {name: [turn.rate for turn in turns[1:]] for name, turns in samples.items()}


def _run_turn(process: EngineProcess, workload: BatchWorkload, prompts: TokenIds) -> RoundSample:
    ttft = _run_batch(process, prompts, 1)
    seconds = _run_batch(process, prompts, workload.output_len)
    time.sleep(SETTLE_SECONDS.get(process.name, 0))
    return RoundSample(ttft, workload.streams * workload.output_len / seconds)


def _run_batch(process: EngineProcess, prompts: TokenIds, max_tokens: int) -> float:
    """The seconds that the batch took. Raises CompareError unless every answer has `max_tokens` tokens."""
    result = process.run(prompts, max_tokens)
    if result.num_tokens != [max_tokens] * len(prompts):
        raise CompareError(
            f"{process.name} answered with {result.num_tokens} tokens; each answer should have {max_tokens}."
        )
    return result.seconds
