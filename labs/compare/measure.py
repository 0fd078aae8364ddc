"""Rounds of the same requests through every engine in turn, so that a busy minute of the machine hits all of them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from labs.compare.engines import ENGINES, Job
from labs.compare.worker import Worker


class CompareError(RuntimeError):
    """An engine that is not there, or that did not do the work."""


@dataclass(frozen=True)
class Workload:
    """`streams` requests at once, each of `input_len` tokens in and `output_len` out."""

    streams: int
    input_len: int
    output_len: int

    def __str__(self) -> str:
        return f"{self.streams}x{self.input_len}-{self.output_len}"

    @property
    def kv_tokens(self) -> int:
        """Room for all of them, in blocks of 32."""
        return self.streams * (self.input_len + self.output_len + 32)


@dataclass
class Measured:
    """Seconds to start and bytes of memory of each engine; output tokens per second, one a round, by workload."""

    start: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    rates: dict[Workload, dict[str, list[float]]] = field(default_factory=dict)

    def ratios(self, workload: Workload, other: str) -> dict[str, list[float]]:
        """Each engine's rate over that of `other` in the same round."""
        rates = self.rates[workload]
        return {
            name: [mine / theirs for mine, theirs in zip(values, rates[other], strict=True)]
            for name, values in rates.items()
            if name != other
        }

    def median(self, workload: Workload) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.rates[workload].items()}


def compare(
    job: Job,
    workloads: Iterable[Workload],
    engines: Iterable[str] = ("aot", "vllm"),
    *,
    rounds: int = 5,
    vocabulary: int = 4096,
    say: Callable[[str], object] = print,
) -> Measured:
    """Start every engine, then serve each workload `rounds` times by all in turn; one round before is not counted.

    Raises CompareError for an unknown engine, or one whose answers are not as long as they should be.
    """
    names = list(engines)
    if unknown := sorted(set(names) - ENGINES.keys()):
        raise CompareError(f"No engine {', '.join(unknown)}; there is: {', '.join(ENGINES)}.")
    made = Measured()
    with ExitStack() as stack:
        workers = []
        for name in names:
            worker = Worker(name, job)
            stack.callback(worker.stop)
            workers.append(worker)
            made.start[name] = worker.start_seconds
            say(f"{name}: first token {worker.start_seconds:.1f} s after its start")
        for load in workloads:
            made.rates[load] = {name: [] for name in names}
            for number in range(rounds + 1):
                for name, rate in _round(workers, load, number, vocabulary).items():
                    if number:
                        made.rates[load][name].append(rate)
            say(
                f"{load}: "
                + ", ".join(f"{name} {rate:.1f}" for name, rate in made.median(load).items())
                + " tokens/s"
            )
        made.memory = {worker.name: worker.memory() for worker in workers}
    return made


def _round(workers: list[Worker], load: Workload, seed: int, vocabulary: int) -> dict[str, float]:
    draw = random.Random(f"{load} {seed}")
    prompts = [[draw.randrange(vocabulary) for _ in range(load.input_len)] for _ in range(load.streams)]
    rates = {}
    for worker in workers:
        run = worker.run(prompts, load.output_len)
        if run.tokens != [load.output_len] * load.streams:
            raise CompareError(
                f"{worker.name} answered {run.tokens} tokens, asked were {load.output_len} of each."
            )
        rates[worker.name] = sum(run.tokens) / run.seconds
    return rates
