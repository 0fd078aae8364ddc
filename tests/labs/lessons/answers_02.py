"""Lesson 02: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from engineroom import load
from engineroom.load import SLO, Point, Trace
from labs.measure.checks import RUN


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
    "02.latency": (latencies,),
    "02.percentile": (lambda values: load.percentile(values, 99),),
    "02.goodput": (load.throughput, load.goodput),
    "02.max_rate": (best,),
    "02.little": (lambda traces: len(traces) / load.duration(traces) * mean_e2e(traces), RUN),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
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
]  # fmt: skip
