"""What lesson 11 measures is what it says: the lengths of the sequences, the best of several runs, pairs in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.model_runner import ModelRunner
from engineroom.profile.ceilings import Ceilings
from engineroom.profile.counts import Step
from labs.profile import runs
from labs.profile.runs import (
    ProfilerCost,
    decode_step,
    highest_ceilings,
    measure_decode,
    measure_prefill,
    profiler_cost,
)

CEILINGS = Ceilings("cpu", "a processor", 2, 1000, 5.0, {"float32": 7.0}, 0.5)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """For each decode step, the length of each sequence, its new token included."""
    lengths: list[list[int]] = []
    run_generation = ModelRunner.run_generation

    def note(self: ModelRunner, token_ids: Sequence[int], positions: Sequence[int], *others: Any) -> Any:
        lengths.append([position + 1 for position in positions])
        return run_generation(self, token_ids, positions, *others)

    monkeypatch.setattr(ModelRunner, "run_generation", note)
    return lengths


@pytest.mark.parametrize(("batch", "context"), [(1, 30), (4, 10), (4, 90), (6, 120)])
def test_a_decode_step_has_the_batch_and_the_mean_context(
    engine: EngineDir, steps: list[list[int]], batch: int, context: int
) -> None:
    measured = measure_decode(engine, batch, context, steps=9)
    timed = steps[-9:]
    assert [len(lengths) for lengths in timed] == [batch] * 9
    context_steps = -(-batch * context // engine.limits.max_num_tokens)
    lengths = [length for step_lengths in timed for length in step_lengths]
    assert abs(sum(lengths) / len(lengths) - context) <= 2 + context_steps
    assert measured.step == Step.generation([context - 1] * batch)
    assert measured.name == f"decode, batch {batch}"


def test_a_prefill_is_one_step_of_the_whole_prompt(
    engine: EngineDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[int] = []
    run_context = ModelRunner.run_context

    def note(self: ModelRunner, chunk: Sequence[Any]) -> Any:
        chunks.extend(len(item.token_ids) for item in chunk)
        return run_context(self, chunk)

    monkeypatch.setattr(ModelRunner, "run_context", note)
    assert measure_prefill(engine, 40, repeats=3).step == Step.context([40])
    assert chunks == [40] * 4


def test_decode_steps_do_not_run_out(engine: EngineDir, steps: list[list[int]]) -> None:
    step = decode_step(engine, 3, 50, steps=12)
    steps.clear()
    for _ in range(12):
        step()
    assert [len(lengths) for lengths in steps] == [3] * 12


def test_each_ceiling_is_the_best_of_its_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [
        replace(
            CEILINGS, read_bytes_per_s=rate, operations_per_s={"float32": 10 - rate}, operator_call_s=1 / rate
        )
        for rate in (3.0, 8.0, 2.0)
    ]
    remaining = iter(measured)
    monkeypatch.setattr(runs, "measure_ceilings", lambda *_, **__: next(remaining))
    highest = highest_ceilings("cpu", "float32", rounds=3)
    assert (highest.read_bytes_per_s, highest.operations_per_s, highest.operator_call_s) == (
        8.0,
        {"float32": 8.0},
        1 / 8,
    )


def test_the_profiler_records_events_only_in_its_turns(engine: EngineDir) -> None:
    calls: list[int] = []
    step = decode_step(engine, 2, 30, steps=2 * 2 * 3)
    cost = profiler_cost(lambda: (calls.append(1), step()), rounds=2, calls=2)
    assert len(calls) == 2 * 2 * (1 + 2)
    assert len(cost.without) == len(cost.with_profiler) == 2 * 2
    assert cost.events > 5  # `step`, its parts, and operators


def test_neither_a_lucky_run_nor_disturbed_ones_change_the_ratio() -> None:
    without = [1.0] + [4.0] * 20 + [90.0] * 19
    with_profiler = [6.0] * 25 + [70.0] * 15
    assert ProfilerCost(without, with_profiler, events=1).ratio == 1.5


@pytest.mark.parametrize("function", [measure_decode, measure_prefill])
def test_utilisation_is_a_share(engine: EngineDir, function: Callable[..., runs.MeasuredStep]) -> None:
    arguments = (2, 40) if function is measure_decode else (40,)
    assert 0 <= function(engine, *arguments).utilisation <= 1
