"""Every check can fail: the empty answer, and a list of wrong answers, each with the hint that names its mistake."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engineroom import load
from engineroom.kit.machine import machine
from engineroom.load import SLO, Point, Trace
from labs.kit import bill, course
from labs.kit.check import CheckResult, check, exercises
from labs.measure.checks import GOAL, RUN
from labs.serve_with_vllm.checks import example_metrics
from tests.labs.lessons import answers_04, answers_05, answers_06, answers_10

HERE = machine()
RATE = bill.price_per_hour("H100")
CHANGE = example_metrics(800, 100, time=2.0)


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


def latencies(trace: Trace, **changes: Callable[[Trace], object]) -> dict[str, object]:
    functions: dict[str, Callable[[Trace], object]] = {
        "ttft": load.ttft, "e2e": load.e2e, "itl": load.itl, "tpot": load.tpot}  # fmt: skip
    return {name: function(trace) for name, function in (functions | changes).items()}


def wrong_latency(**changes: Callable[[Trace], object]) -> Callable[[Trace], dict[str, object]]:
    return lambda trace: latencies(trace, **changes)


def good_requests(traces: list[Trace], slo: SLO) -> int:
    return sum(load.meets(trace, slo) for trace in traces)


def mean_e2e(traces: list[Trace]) -> float:
    return statistics.mean(load.e2e(trace) for trace in traces)


def best(points: list[Point], slo: SLO) -> float:
    return max((point.rate for point in points if point.share(slo) >= 0.9), default=0)


RIGHT: dict[str, tuple[Any, ...]] = {
    "00.card": (HERE.cores, "vllm"),
    "00.weights": (lambda n, size: n * size / 1e9,),
    "00.budget": (10 / RATE * 60, 10),
    "01.streaming": ([0.05, 0.06, 0.08, 0.11, 0.13],),
    "01.counters": (lambda a, b: (b - a)["generation_tokens_total"] / (b - a).time,),
    "01.batching": (lambda c: c["generation_tokens_total"] / c["iteration_tokens_total_count"], CHANGE),
    "01.waves": (4, 12, 16, 4, 12),
    "02.latency": (latencies,),
    "02.percentile": (lambda values: load.percentile(values, 99),),
    "02.goodput": (load.throughput, load.goodput),
    "02.max_rate": (best,),
    "02.little": (lambda traces: len(traces) / load.duration(traces) * mean_e2e(traces), RUN),
    **answers_04.RIGHT,
    **answers_05.RIGHT,
    **answers_06.RIGHT,
    **answers_10.RIGHT,
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("00.card", ("two", "vllm"), "must be a whole number"),
    ("00.card", (True, "vllm"), "must be a whole number"),
    ("00.card", (HERE.cores + 1, "vllm"), "Read the row CPU"),
    ("00.card", (HERE.cores, "trtllm9"), "cannot run on this machine"),
    ("00.weights", (16.0,), "Pass it uncalled"),
    ("00.weights", (lambda n, size: print(end=""),), "`return`"),
    ("00.weights", (lambda n, size: n * size * 8 / 1e9,), "gigabits"),
    ("00.weights", (lambda n, size: n * size,), "That is bytes"),
    ("00.weights", (lambda n, size: n * size / 2**30,), "gibibytes"),
    ("00.weights", (lambda n, size: n / size / 1e9,), "Multiply the two"),
    ("00.weights", (lambda n, size: 16,), "Multiply the two"),
    ("00.budget", ("much", 10), "number of minutes"),
    ("00.budget", (10 / RATE, 10), "Those are hours"),
    ("00.budget", (10 * RATE * 60, 10), "multiplied by the price"),
    ("00.budget", (7.5, 10), "How many hours do they buy"),
    ("01.streaming", ("0.1",), "list of seconds"),
    ("01.streaming", ([],), "inside the loop"),
    ("01.streaming", ([0.3],), "stream=True"),
    ("01.streaming", ([time.time() + i for i in range(9)],), "clock reading"),
    ("01.streaming", ([0.5, 0.01, 0.02, 0.01, 0.02],), "gaps between tokens"),
    ("01.streaming", ([0.5, 0.5, 0.5, 0.5, 0.5],), "stream had ended"),
    ("01.counters", (150.0,), "Pass it uncalled"),
    ("01.counters", (lambda a, b: "fast",), "not a number"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"],), "take the difference"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"] / (b - a).time,), "the whole counter"),
    ("01.counters", (lambda a, b: (b - a)["generation_tokens_total"],), "divide by the seconds"),
    ("01.counters", (lambda a, b: (a - b)["generation_tokens_total"] / (b - a).time,), "The sign is reversed"),
    ("01.counters", (lambda a, b: (b - a)["iteration_tokens_total_sum"] / (b - a).time,), "prompt tokens too"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"] / b.time,), "clock reading"),
    ("01.counters", (lambda a, b: (b - a)["prompt_tokens_total"] / (b - a).time,), "prompt tokens per second"),
    ("01.counters", (lambda a, b: 1.0,), "by the difference of the times"),
    ("01.batching", (8, CHANGE), "Pass it uncalled"),
    ("01.batching", (lambda c: [], CHANGE), "not a number"),
    ("01.batching", (lambda c: c["generation_tokens_total"] / c.time, CHANGE), "tokens per second"),
    ("01.batching", (lambda c: c["iteration_tokens_total_count"] / c["generation_tokens_total"], CHANGE), "inverse"),
    ("01.batching", (lambda c: c["iteration_tokens_total_sum"] / c["iteration_tokens_total_count"], CHANGE), "prompt"),
    ("01.batching", (lambda c: c["generation_tokens_total"], CHANGE), "all tokens"),
    ("01.batching", (lambda c: 3.0, CHANGE), "800 tokens in 100"),
    ("01.batching", (RIGHT["01.batching"][0], example_metrics(100, 100, time=1.0)), "nothing ran together"),
    ("01.waves", (4.0, 12, 16, 4, 12), "`waves` must be a whole number"),
    ("01.waves", (4, "12", 16, 4, 12), "`longest_queue` must be a whole number"),
    ("01.waves", (16, 12, 16, 4, 12), "16 waves is not it"),
    ("01.waves", (4, 8, 12, 4, 8), "run together"),
    ("01.waves", (4, 16, 16, 4, 12), "the first ones start at once"),
    ("01.waves", (4, 4, 16, 4, 12), "the rest waits"),
    ("01.waves", (4, 12, 16, 4, 14), "vLLM reported 14"),
    ("02.latency", (0.5,), "Pass it uncalled"),
    ("02.latency", (lambda trace: 0.5,), "dictionary"),
    ("02.latency", (wrong_latency(tpot=lambda t: ...),), "still `...`: tpot"),
    ("02.latency", (wrong_latency(ttft=lambda t: t.arrivals[0]),), "clock reading"),
    ("02.latency", (wrong_latency(ttft=lambda t: 1000 * load.ttft(t)),), "milliseconds"),
    ("02.latency", (wrong_latency(ttft=lambda t: 0.1),), "`ttft` is 0.1"),
    ("02.latency", (wrong_latency(e2e=lambda t: t.arrivals[-1] - t.arrivals[0]),), "leaves out the wait"),
    ("02.latency", (wrong_latency(e2e=lambda t: 1.0),), "`e2e` is 1.0"),
    ("02.latency", (wrong_latency(itl=lambda t: [load.ttft(t), *load.itl(t)]),), "but the first"),
    ("02.latency", (wrong_latency(itl=lambda t: [0.1, 0.1, 0.1, 0.1]),), "minus the arrival before"),
    ("02.latency", (wrong_latency(tpot=lambda t: (t.arrivals[-1] - t.arrivals[0]) / 5),), "number of gaps"),
    ("02.latency", (wrong_latency(tpot=lambda t: load.e2e(t) / 4),), "leaves TTFT out"),
    ("02.latency", (wrong_latency(tpot=lambda t: 0.9),), "(number of tokens - 1)"),
    ("02.percentile", (3.0,), "Pass it uncalled"),
    ("02.percentile", (lambda values: values,), "not a number"),
    ("02.percentile", (statistics.mean,), "the mean"),
    ("02.percentile", (max,), "the maximum"),
    ("02.percentile", (lambda values: values[round(0.99 * (len(values) - 1))],), "sorted"),
    ("02.percentile", (lambda values: 5.0,), "between 2 and 4"),
    ("02.goodput", (lambda traces: [], load.goodput), "must be numbers"),
    ("02.goodput", (lambda traces: sum(len(t.arrivals) for t in traces), load.goodput), "number of tokens"),
    ("02.goodput", (lambda traces: len(traces) / load.duration(traces), load.goodput), "counts requests"),
    ("02.goodput", (lambda traces: 14 / sum(map(load.e2e, traces)), load.goodput), "sum of all latencies"),
    ("02.goodput", (lambda traces: 9.0, load.goodput), "All output tokens"),
    ("02.goodput", (load.throughput, good_requests), "gave a count"),
    ("02.goodput", (load.throughput, lambda traces, slo: good_requests(traces, slo) / len(traces)), "a share"),
    ("02.goodput", (load.throughput, lambda traces, slo: sum(load.ttft(t) <= slo.ttft for t in traces) / 4.1), "Both"),
    ("02.goodput", (load.throughput, lambda traces, slo: 8 / 4.1), "not tokens"),
    ("02.goodput", (load.throughput, lambda traces, slo: 0.1), "within their limits"),
    ("02.max_rate", (4.0,), "Pass it uncalled"),
    ("02.max_rate", (lambda points, slo: points,), "not a number"),
    ("02.max_rate", (lambda points, slo: max(p.share(slo) for p in points),), "a share"),
    ("02.max_rate", (lambda points, slo: max(p.rate for p in points),), "let down"),
    ("02.max_rate", (lambda points, slo: max(p.rate for p in points if p.share(slo) > 0.8),), "0.89"),
    ("02.max_rate", (lambda points, slo: min(p.rate for p in points),), "safest"),
    ("02.max_rate", (lambda points, slo: 5.0,), "0.9 is needed"),
    ("02.max_rate", (lambda points, slo: best(points, slo) or 1.0,), "default=0"),
    ("02.little", (5.0, RUN), "Pass it uncalled"),
    ("02.little", (lambda traces: traces, RUN), "not a number"),
    ("02.little", (lambda traces: sum(map(load.ttft, traces)) / load.duration(traces), RUN), "TTFT"),
    ("02.little", (lambda traces: sum(map(load.e2e, traces)), RUN), "sum of all latencies"),
    ("02.little", (mean_e2e, RUN), "the mean latency"),
    ("02.little", (lambda traces: len(traces) / load.duration(traces), RUN), "the rate"),
    ("02.little", (lambda traces: 7.0, RUN), "the requests per second of the run"),
    *answers_04.WRONG,
    *answers_05.WRONG,
    *answers_06.WRONG,
    *answers_10.WRONG,
]  # fmt: skip

ALL = [exercise.id for lesson in course.LESSONS for exercise in exercises(lesson)]


def num_learner_values(id: str) -> int:
    """How many of the check's values the learner writes."""
    return {"00.card": 2, "01.waves": 2, "02.goodput": 2}.get(id, 1)


def test_every_exercise_is_here() -> None:
    assert sorted(RIGHT) == sorted(ALL)
    attacked_ids = [id for id, _, _ in WRONG]
    assert all(attacked_ids.count(id) >= 4 for id in ALL)


@pytest.mark.parametrize("id", ALL)
def test_the_right_answer_passes(id: str) -> None:
    assert check(id, *RIGHT[id])


@pytest.mark.parametrize("id", ALL)
def test_an_empty_answer_is_not_written_yet(id: str) -> None:
    values = [..., ...][: num_learner_values(id)] + list(RIGHT[id][num_learner_values(id) :])
    result = check(id, *values)
    assert not result
    assert "not written yet" in str(result)


@pytest.mark.parametrize(("id", "values", "hint"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_a_wrong_answer_is_named(id: str, values: tuple[Any, ...], hint: str) -> None:
    result: CheckResult = check(id, *values)
    assert result.verdict == "NOT YET", result
    assert hint in str(result)


@pytest.mark.parametrize("id", ALL)
def test_hints_do_not_run_out(id: str) -> None:
    """The same mistake three times: still a hint, never an exception."""
    values = next(values for name, values, _ in WRONG if name == id)
    for _ in itertools.repeat(None, 3):
        assert check(id, *values).verdict == "NOT YET"


def test_right_answers_use_the_papers_numbers() -> None:
    """The checks expect what engineroom.load computes, not numbers of their own."""
    assert load.throughput(RUN) == pytest.approx(14 / 4.1)
    assert load.goodput(RUN, GOAL) == pytest.approx(2 / 4.1)
