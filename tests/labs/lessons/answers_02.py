"""Lesson 02: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from math import ceil
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from engineroom import load
from engineroom.load import SLO, Point, Trace
from labs.measure.examples import RUN, STALLS


class Latencies(NamedTuple):
    ttft: float
    e2e: float
    itl: list[float]
    tpot: float


def latencies(trace: Trace, **changes: Callable[[Trace], object]) -> dict[str, Any]:
    functions: dict[str, Callable[[Trace], object]] = {
        "ttft": load.ttft, "e2e": load.e2e, "itl": load.itl, "tpot": load.tpot}  # fmt: skip
    return {name: function(trace) for name, function in (functions | changes).items()}


def wrong_latency(**changes: Callable[[Trace], object]) -> tuple[Any, ...]:
    return (lambda trace: latencies(trace, **changes),)


def numpy_latencies(trace: Trace) -> dict[str, object]:
    arrivals = np.array(trace.arrivals)
    gaps = np.diff(arrivals)
    return {
        "ttft": arrivals[0] - trace.sent,
        "e2e": arrivals[-1] - trace.sent,
        "itl": gaps,
        "tpot": gaps.mean(),
    }


def clearing_latencies(trace: Trace) -> dict[str, object]:
    """Right, and it empties the trace that it got."""
    output = latencies(trace)
    trace.arrivals.clear()
    trace.sent = 0.0
    return output


def good_requests(traces: list[Trace], slo: SLO) -> int:
    return sum(load.meets(trace, slo) for trace in traces)


def goodput_by(meets: Callable[[Trace, SLO], bool]) -> tuple[Any, ...]:
    return (
        load.throughput,
        lambda traces, slo: sum(meets(trace, slo) for trace in traces) / load.duration(traces),
    )


def goodput_by_gap(gap: Callable[[list[float]], float]) -> tuple[Any, ...]:
    return goodput_by(lambda trace, slo: load.ttft(trace) <= slo.ttft and gap(load.itl(trace)) <= slo.tpot)


def goodput_by_time(seconds: Callable[[Trace], float]) -> tuple[Any, ...]:
    return goodput_by(lambda trace, slo: load.ttft(trace) <= slo.ttft and seconds(trace) <= slo.tpot)


def mean_e2e(traces: list[Trace]) -> float:
    return statistics.mean(load.e2e(trace) for trace in traces)


def in_flight(traces: list[Trace]) -> float:
    return len(traces) / load.duration(traces) * mean_e2e(traces)


def in_flight_by_integral(traces: list[Trace]) -> float:
    """Requests over time, without the law."""
    events = sorted([(t.sent, 1) for t in traces] + [(t.arrivals[-1], -1) for t in traces])
    area, count, moment = 0.0, 0, events[0][0]
    for time, change in events:
        area, count, moment = area + count * (time - moment), count + change, time
    return area / load.duration(traces)


def best(points: list[Point], slo: SLO) -> float:
    return max((point.rate for point in points if point.share(slo) >= 0.9), default=0)


def best_by_loop(points: list[Point], slo: SLO) -> float:
    rate = 0.0
    for point in points:
        if point.share(slo) < 0.9:
            break
        rate = point.rate
    return rate


def best_above(share: float, default: float = 0.0) -> tuple[Any, ...]:
    return (lambda points, slo: max((p.rate for p in points if p.share(slo) >= share), default=default),)


def nearest_rank(values: list[float]) -> float:
    return sorted(values)[ceil(0.99 * len(values)) - 1]


def tokens(traces: list[Trace]) -> int:
    return sum(len(trace.arrivals) for trace in traces)


def throughput(function: Callable[[list[Trace]], object]) -> tuple[Any, ...]:
    return function, load.goodput


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "02.latency": [
        (latencies,),
        (numpy_latencies,),
        (clearing_latencies,),
        (lambda trace: MappingProxyType(latencies(trace)),),
        (lambda trace: Latencies(**latencies(trace)),),
        (lambda trace: SimpleNamespace(**latencies(trace)),),
        (lambda trace: pd.Series(latencies(trace)),),
        (
            lambda trace: latencies(
                trace, itl=lambda t: torch.diff(torch.tensor(t.arrivals, dtype=torch.float64))
            ),
        ),
        (lambda trace: latencies(trace, itl=lambda t: (gap for gap in load.itl(t))),),
        (
            lambda trace: latencies(
                trace, tpot=lambda t: Fraction(load.tpot(t)), ttft=lambda t: Decimal(load.ttft(t))
            ),
        ),
        (lambda trace: latencies(trace, tpot=lambda t: round(load.tpot(t), 3)) | {"tokens": 5},),
    ],
    "02.percentile": [
        (lambda values: load.percentile(values, 99),),
        (lambda values: sorted(values)[round(0.99 * (len(values) - 1))],),
        (lambda values: sorted(values)[int(0.99 * len(values))],),
        (nearest_rank,),
        (lambda values: np.percentile(values, 99),),
        (lambda values: np.quantile(values, 0.99, method="weibull"),),
        (lambda values: pd.Series(values).quantile(0.99),),
        (lambda values: statistics.quantiles(values, n=100)[98],),
        (lambda values: torch.quantile(torch.tensor(values, dtype=torch.float64), 0.99),),
        (lambda values: values.sort() or values[-(len(values) // 100) - 1],),
    ],
    "02.goodput": [
        (load.throughput, load.goodput),
        (lambda traces: np.sum([len(t.arrivals) for t in traces]) / load.duration(traces), load.goodput),
        (
            load.throughput,
            lambda traces, slo: Fraction(good_requests(traces, slo)) / Fraction(load.duration(traces)),
        ),
        (
            lambda traces: torch.tensor(load.throughput(traces)),
            lambda traces, slo: np.float32(load.goodput(traces, slo)),
        ),
        (
            lambda traces: round(load.throughput(traces), 2),
            lambda traces, slo: round(load.goodput(traces, slo), 3),
        ),
        goodput_by(
            lambda trace, slo: latencies(trace)["ttft"] <= slo.ttft and latencies(trace)["tpot"] <= slo.tpot
        ),
        goodput_by_gap(statistics.mean),
    ],
    "02.max_rate": [
        (best,),
        (best_by_loop,),
        (lambda points, slo: np.float64(best(points, slo)),),
        (lambda points, slo: next((p.rate for p in reversed(points) if p.share(slo) >= 0.9), 0),),
        (
            lambda points, slo: (
                pd.Series([p.rate for p in points])[[p.share(slo) >= 0.9 for p in points]].max()
                if best(points, slo)
                else False + 0
            ),
        ),
        (lambda points, slo: Decimal(str(best(points, slo))),),
        (lambda points, slo: max([0, *(p.rate for p in points if p.share(slo) >= 0.9)]),),
    ],
    "02.little": [
        (in_flight, RUN),
        (in_flight_by_integral, STALLS),
        (lambda traces: sum(map(load.e2e, traces)) / load.duration(traces), RUN),
        (lambda traces: np.mean([*map(load.e2e, traces)]) * len(traces) / load.duration(traces), STALLS),
        (lambda traces: Fraction(in_flight(traces)), RUN),
        (lambda traces: torch.tensor(in_flight(traces)), tuple(RUN)),
        (lambda traces: round(in_flight(traces), 2), RUN),
        (in_flight, [*RUN, Trace(5.0, error="refused")]),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("02.latency", (0.5,), "Pass it uncalled"),
    ("02.latency", (lambda trace: 0.5,), "dictionary"),
    ("02.latency", (lambda trace: [*latencies(trace).values()],), "dictionary"),
    ("02.latency", (lambda trace: {"ttft": load.ttft(trace)},), "no key e2e, itl, tpot"),
    ("02.latency", wrong_latency(tpot=lambda t: ...), "still `...`: tpot"),
    ("02.latency", wrong_latency(itl=lambda t: None), "still `...`: itl"),
    ("02.latency", wrong_latency(ttft=lambda t: t.arrivals[0]), "clock reading"),
    ("02.latency", wrong_latency(ttft=lambda t: 1000 * load.ttft(t)), "milliseconds"),
    ("02.latency", wrong_latency(ttft=load.e2e), "**last** token"),
    ("02.latency", wrong_latency(ttft=lambda t: t.arrivals[1] - t.sent), "second token"),
    ("02.latency", wrong_latency(ttft=lambda t: t.sent - t.arrivals[0]), "sign is reversed"),
    ("02.latency", wrong_latency(ttft=lambda t: 0.1), "`ttft` should be 0.5, and is 0.1"),
    ("02.latency", wrong_latency(ttft=lambda t: "0.5"), "not a number"),
    ("02.latency", wrong_latency(e2e=lambda t: t.arrivals[-1]), "clock reading"),
    ("02.latency", wrong_latency(e2e=lambda t: t.arrivals[-1] - t.arrivals[0]), "leaves out the wait"),
    ("02.latency", wrong_latency(e2e=load.ttft), "**first** token"),
    ("02.latency", wrong_latency(e2e=lambda t: 1000 * load.e2e(t)), "milliseconds"),
    ("02.latency", wrong_latency(e2e=lambda t: 1.0), "`e2e` should be 1.3, and is 1"),
    ("02.latency", wrong_latency(itl=load.tpot), "`itl` is a list"),
    ("02.latency", wrong_latency(itl=lambda t: [load.ttft(t), *load.itl(t)]), "but the first"),
    ("02.latency", wrong_latency(itl=lambda t: [0.1, 0.1, 0.1, 0.1]), "minus the arrival before"),
    ("02.latency", wrong_latency(itl=lambda t: [-gap for gap in load.itl(t)]), "gaps are negative"),
    ("02.latency", wrong_latency(itl=lambda t: [1000 * gap for gap in load.itl(t)]), "in milliseconds"),
    ("02.latency", wrong_latency(itl=lambda t: [a - t.sent for a in t.arrivals[1:]]), "waits since sending"),
    ("02.latency", wrong_latency(itl=lambda t: [a - t.arrivals[0] for a in t.arrivals[1:]]), "since the first token"),
    ("02.latency", wrong_latency(itl=lambda t: sorted(load.itl(t))), "gaps are sorted"),
    ("02.latency", wrong_latency(itl=lambda t: ["0.1"] * 4), "not a number"),
    ("02.latency", wrong_latency(tpot=lambda t: (t.arrivals[-1] - t.arrivals[0]) / len(t.arrivals)), "number of gaps"),
    ("02.latency", wrong_latency(tpot=lambda t: load.e2e(t) / len(t.arrivals)), "number of gaps"),
    ("02.latency", wrong_latency(tpot=lambda t: load.e2e(t) / (len(t.arrivals) - 1)), "leaves TTFT out"),
    ("02.latency", wrong_latency(tpot=lambda t: max(load.itl(t))), "longest gap"),
    ("02.latency", wrong_latency(tpot=lambda t: statistics.median(load.itl(t))), "median gap"),
    ("02.latency", wrong_latency(tpot=lambda t: sum(load.itl(t))), "sum of all gaps"),
    ("02.latency", wrong_latency(tpot=lambda t: 1 / load.tpot(t)), "inverse"),
    ("02.latency", wrong_latency(tpot=lambda t: 0.9), "the same for every input"),
    ("02.latency", wrong_latency(tpot=lambda t: load.tpot(t) + 0.1), "(number of tokens - 1)"),
    ("02.percentile", (3.0,), "Pass it uncalled"),
    ("02.percentile", (lambda values: values,), "not a number"),
    ("02.percentile", (lambda values: sorted(values)[-1:],), "without a list"),
    ("02.percentile", (statistics.mean,), "the mean"),
    ("02.percentile", (statistics.median,), "the median"),
    ("02.percentile", (max,), "the maximum"),
    ("02.percentile", (min,), "the minimum"),
    ("02.percentile", (lambda values: values[round(0.99 * (len(values) - 1))],), "Sort first"),
    ("02.percentile", (lambda values: values[int(0.99 * len(values))],), "Sort first"),
    ("02.percentile", (lambda values: np.percentile(values, 0.99),), "counts in percent: pass 99"),
    ("02.percentile", (lambda values: np.percentile(values, 95),), "95th"),
    ("02.percentile", (lambda values: np.percentile(values, 99.9),), "99.9th"),
    ("02.percentile", (lambda values: sorted(values)[-2],), "last value but one"),
    ("02.percentile", (lambda values: sorted(values)[99 if len(values) > 99 else -1],), "100th value"),
    ("02.percentile", (lambda values: sorted(values)[::-1][round(0.99 * (len(values) - 1))],), "descending"),
    ("02.percentile", (lambda values: 0.99 * max(values),), "99 % of the maximum"),
    ("02.percentile", (lambda values: int(0.99 * len(values)),), "That is the index"),
    ("02.percentile", (lambda values: 5.0,), "the same for every input"),
    ("02.percentile", (lambda values: 1.3 * load.percentile(values, 99),), "should be between"),
    ("02.goodput", (0.5, load.goodput), "Pass it uncalled"),
    ("02.goodput", (load.throughput, 0.5), "Pass it uncalled"),
    ("02.goodput", throughput(lambda traces: []), "not a number"),
    ("02.goodput", throughput(tokens), "number of tokens"),
    ("02.goodput", throughput(lambda traces: len(traces) / load.duration(traces)), "counts requests"),
    ("02.goodput", throughput(lambda traces: tokens(traces) / sum(map(load.e2e, traces))), "sum of all latencies"),
    ("02.goodput", throughput(lambda traces: (tokens(traces) - len(traces)) / load.duration(traces)), "first token of"),
    ("02.goodput", throughput(lambda traces: tokens(traces) // load.duration(traces)), "The fraction is lost"),
    ("02.goodput", throughput(lambda traces: load.duration(traces) / tokens(traces)), "seconds per token"),
    ("02.goodput", throughput(lambda traces: tokens(traces) / (traces[-1].arrivals[-1] - traces[0].sent)),
     "not always the last to end"),
    ("02.goodput", throughput(lambda traces: tokens(traces) / max(t.arrivals[-1] for t in traces)), "clock reading"),
    ("02.goodput", throughput(lambda traces: 9.0), "the same for every input"),
    ("02.goodput", throughput(lambda traces: load.throughput(traces) + 1), "All output tokens"),
    ("02.goodput", (load.throughput, lambda traces, slo: None), "not a number"),
    ("02.goodput", (load.throughput, good_requests), "gave a count"),
    ("02.goodput", (load.throughput, lambda traces, slo: good_requests(traces, slo) / len(traces)), "a share"),
    ("02.goodput", (load.throughput, lambda traces, slo: 100 * good_requests(traces, slo) / len(traces)), "percentage"),
    ("02.goodput", goodput_by(lambda trace, slo: load.ttft(trace) <= slo.ttft), "TTFT alone"),
    ("02.goodput", goodput_by(lambda trace, slo: load.tpot(trace) <= slo.tpot), "TPOT alone"),
    ("02.goodput", goodput_by(lambda t, slo: load.ttft(t) <= slo.ttft or load.tpot(t) <= slo.tpot), "with `and`"),
    ("02.goodput", goodput_by(lambda trace, slo: True), "counts every request"),
    ("02.goodput", goodput_by(lambda trace, slo: not load.meets(trace, slo)), "missed a limit"),
    ("02.goodput", goodput_by_gap(max), "longest gap"),
    ("02.goodput", goodput_by_gap(min), "shortest gap"),
    ("02.goodput", goodput_by_gap(statistics.median), "median gap"),
    ("02.goodput", goodput_by_time(lambda t: load.e2e(t) / (len(t.arrivals) - 1)), "with the first token"),
    ("02.goodput", goodput_by_time(lambda t: sum(load.itl(t)) / len(t.arrivals)), "Divide by the gaps"),
    ("02.goodput", goodput_by_time(load.e2e), "end-to-end latency with"),
    ("02.goodput", (load.throughput, lambda traces, slo: load.throughput([t for t in traces if load.meets(t, slo)])),
     "Requests with TTFT and TPOT"),
    ("02.goodput", (load.throughput, lambda traces, slo: tokens([t for t in traces if load.meets(t, slo)])
     / load.duration(traces)), "not tokens"),
    ("02.goodput", (load.throughput, lambda traces, slo: 0.1), "the same for every input"),
    ("02.goodput", (load.throughput, lambda traces, slo: good_requests(traces, slo) // load.duration(traces)),
     "The fraction is lost"),
    ("02.max_rate", (4.0,), "Pass it uncalled"),
    ("02.max_rate", (lambda points, slo: points,), "not a number"),
    ("02.max_rate", (lambda points, slo: max(points, key=lambda p: p.rate),), "not a number"),
    ("02.max_rate", (lambda points, slo: max(p.share(slo) for p in points),), "a share"),
    ("02.max_rate", (lambda points, slo: max(p.rate for p in points),), "let down"),
    ("02.max_rate", best_above(0.8), "0.89"),
    ("02.max_rate", best_above(0.95), "more than the promise"),
    ("02.max_rate", best_above(90), "between 0 and 1"),
    ("02.max_rate", (lambda points, slo: max((p.rate for p in points if p.share(slo) > 0.9), default=0),), "`>=`"),
    ("02.max_rate", (lambda points, slo: min(p.rate for p in points),), "safest"),
    ("02.max_rate", (lambda points, slo: sum(p.share(slo) >= 0.9 for p in points),), "how many points"),
    ("02.max_rate", (lambda points, slo: max(p.rate * p.share(slo) for p in points),), "**offered** rate"),
    ("02.max_rate", (lambda points, slo: 5.0,), "the same for every input"),
    ("02.max_rate", (lambda points, slo: best(points, slo) + 0.3,), "at least 0.9"),
    ("02.max_rate", best_above(0.9, default=1.0), "default=0"),
    ("02.max_rate", (lambda points, slo: max(p.rate for p in points if p.share(slo) >= 0.9),), "default=0"),
    ("02.max_rate", (lambda points, slo: best(points, slo) or None,), "on every path"),
    ("02.little", (5.0, RUN), "Pass it uncalled"),
    ("02.little", (lambda traces: traces, RUN), "not a number"),
    ("02.little", (lambda traces: sum(map(load.ttft, traces)) / load.duration(traces), RUN), "TTFT"),
    ("02.little", (lambda traces: sum(map(load.e2e, traces)), RUN), "sum of all latencies"),
    ("02.little", (mean_e2e, RUN), "the mean latency"),
    ("02.little", (lambda traces: len(traces) / load.duration(traces), RUN), "the rate"),
    ("02.little", (len, RUN), "number of all requests"),
    ("02.little", (lambda traces: len(traces) / load.duration(traces) / mean_e2e(traces), RUN), "multiplies them"),
    ("02.little", (lambda traces: load.throughput(traces) * mean_e2e(traces), RUN), "tokens per second"),
    ("02.little", (lambda traces: len(traces) / load.duration(traces) * max(map(load.e2e, traces)), RUN), "longest"),
    ("02.little", (lambda traces: round(in_flight(traces)), RUN), "whole number"),
    ("02.little", (lambda traces: int(in_flight(traces)), RUN), "The fraction is lost"),
    ("02.little", (lambda traces: 7.0, RUN), "the same for every input"),
    ("02.little", (lambda traces: in_flight(traces) + 1, RUN), "the requests per second of the run"),
    ("02.little", (in_flight, []), "no answered request"),
    ("02.little", (in_flight, 5), "no answered request"),
    ("02.little", (lambda traces: in_flight(traces) if len(traces) != 3 else 9.0, RUN[:3]), "For your own run of 3"),
]  # fmt: skip
