"""Rounds of the same requests through every engine in turn, so that a busy minute of the machine hits all of them."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from engineroom.compare.engines import ENGINES
from engineroom.compare.settings import CompareError, Job, Prompts
from engineroom.compare.worker import Worker

# seconds after a turn: vLLM's worker goes on polling for one after its last step (busy_loop_s in shm_broadcast.py)
REST = {"vllm": 1.5}


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
    """Of each engine: seconds of each start, and of the last one's loading alone; bytes of memory at most. By workload,
    one sample a round: seconds to the first token of the last stream, and output tokens per second of the whole."""

    starts: dict[str, list[float]] = field(default_factory=dict)
    load: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    first: dict[Workload, dict[str, list[float]]] = field(default_factory=dict)
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
    starts: int = 1,
    vocabulary: int = 4096,
    say: Callable[[str], object] = print,
) -> Measured:
    """Start every engine (`starts` times), then serve each workload `rounds` times by all in turn; one round before is
    not counted.

    Raises CompareError for an unknown engine, or one whose answers are not as long as they should be.
    """
    names = list(engines)
    if unknown := sorted(set(names) - ENGINES.keys()):
        raise CompareError(f"No engine {', '.join(unknown)}; there is: {', '.join(ENGINES)}.")
    if rounds < 1:
        raise CompareError(f"{rounds} rounds measure nothing; 5 or more give a median.")
    made = Measured()
    with ExitStack() as stack:
        workers = []
        for name in names:
            for _ in range(starts - 1):
                _start(name, job, made, say).stop()
            workers.append(stack.enter_context(_start(name, job, made, say)))
        for load in workloads:
            seen = [_round(workers, load, number, vocabulary) for number in range(rounds + 1)][1:]
            made.first[load] = {name: [one[name][0] for one in seen] for name in names}
            made.rates[load] = {name: [one[name][1] for one in seen] for name in names}
            say(
                f"{load}: "
                + ", ".join(f"{name} {rate:.1f}" for name, rate in made.median(load).items())
                + " tokens/s"
            )
        made.memory = {worker.name: worker.memory() for worker in workers}
    return made


def _start(name: str, job: Job, made: Measured, say: Callable[[str], object]) -> Worker:
    worker = Worker(name, job)
    made.starts.setdefault(name, []).append(worker.start_seconds)
    made.load[name] = worker.load_seconds
    say(f"{name}: first token {worker.start_seconds:.1f} s after its start")
    return worker


def _round(
    workers: list[Worker], load: Workload, seed: int, vocabulary: int
) -> dict[str, tuple[float, float]]:
    """(seconds to the first token of the last stream, tokens per second) of each engine, one after the other."""
    draw = random.Random(f"{load} {seed}")
    prompts = [[draw.randrange(vocabulary) for _ in range(load.input_len)] for _ in range(load.streams)]
    made = {}
    for worker in workers:
        first, whole = (_timed(worker, prompts, tokens) for tokens in (1, load.output_len))
        made[worker.name] = (first, load.streams * load.output_len / whole)
        time.sleep(REST.get(worker.name, 0))
    return made


def _timed(worker: Worker, prompts: Prompts, tokens: int) -> float:
    run = worker.run(prompts, tokens)
    if run.tokens != [tokens] * len(prompts):
        raise CompareError(f"{worker.name} answered {run.tokens} tokens, asked were {tokens} of each.")
    return run.seconds
