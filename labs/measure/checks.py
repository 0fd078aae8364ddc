"""The exercises of lesson 02."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engineroom.load import stats
from engineroom.load.sweep import Point
from engineroom.load.trace import Trace
from labs.kit.check import (
    Mistake,
    close,
    exercise,
    require,
    require_formula,
    require_function,
    require_number,
    to_list,
)
from labs.measure.check_latencies import PERCENTILE_MISTAKES, check_latencies, percentile_range
from labs.measure.check_runs import (
    GOODPUT_MISTAKES,
    LITTLE_MISTAKES,
    MAX_RATE_MISTAKES,
    THROUGHPUT_MISTAKES,
    completion_rate,
    mean_latency,
)
from labs.measure.check_runs import highest_rate as reference_rate
from labs.measure.examples import GOAL, NEVER, RUNS, SAMPLES, SWEEPS


@exercise("02.latency", version=1, title="Four latencies from raw timestamps", minutes=8)
def latency(latencies: Callable[[Trace], Mapping[str, object]]) -> None:
    require_function(latencies, "latencies")
    check_latencies(latencies)


@exercise("02.percentile", version=1, title="The percentile that users feel", minutes=4)
def percentile(p99: Callable[[Sequence[float]], float]) -> None:
    require_function(p99, "p99")
    require_formula(
        p99,
        percentile_range,
        SAMPLES,
        "Sort the values; 99 % of them are at or below the answer.",
        "`sorted(values)[round(0.99 * (len(values) - 1))]`, or numpy's `percentile(values, 99)`.",
        mistakes=PERCENTILE_MISTAKES,
        subject="the 99th percentile",
    )


@exercise("02.goodput", version=1, title="Throughput, and the part of it that keeps a promise", minutes=7)
def goodput(
    throughput: Callable[[Sequence[Trace]], float], goodput: Callable[[Sequence[Trace], stats.SLO], float]
) -> None:
    require_function(throughput, "throughput")
    require(callable(goodput), "`goodput` is not a function. Pass it uncalled.")
    require_formula(
        throughput,
        stats.throughput,
        {name: (traces,) for name, traces in RUNS.items()},
        "All output tokens, over the time from first `sent` to last arrival.",
        mistakes=THROUGHPUT_MISTAKES,
        subject="`throughput`",
    )
    require_formula(
        goodput,
        stats.goodput,
        {name: (traces, GOAL) for name, traces in RUNS.items()},
        "Requests with TTFT and TPOT within their limits, over the run's duration.",
        mistakes=GOODPUT_MISTAKES,
        subject="`goodput`",
    )


@exercise("02.max_rate", version=1, title="The highest rate that keeps the promise", minutes=5)
def max_rate(highest_rate: Callable[[Sequence[Point], stats.SLO], float]) -> None:
    require_function(highest_rate, "highest_rate")
    solution = "`max((point.rate for point in points if point.share(slo) >= 0.9), default=0)`"
    require_formula(
        highest_rate,
        reference_rate,
        SWEEPS,
        "Take the highest rate with a share of at least 0.9.",
        solution,
        mistakes=MAX_RATE_MISTAKES,
        subject="the highest rate",
    )
    never = "When no rate keeps the promise, the function should return 0."
    try:
        output = highest_rate(NEVER, GOAL)
    except ValueError:
        raise Mistake(f"{never} `max()` of nothing raises an error: try `max(…, default=0)`.") from None
    rate = require_number(output, subject="When no rate keeps the promise, the function")
    require(rate == 0, f"{never} It returned {rate:.4g}. Try `max(…, default=0)`.", solution)


@exercise("02.little", version=1, title="Little's law on your own data", minutes=5)
def little(in_flight: Callable[[Sequence[Trace]], float], traces: object) -> None:
    require_function(in_flight, "in_flight")
    require_formula(
        in_flight,
        _requests_in_flight,
        {name: (run,) for name, run in RUNS.items()},
        "Multiply the requests per second of the run by the mean end-to-end latency.",
        "`len(traces) / duration(traces) * mean`, where mean is the mean of `load.e2e(trace)`.",
        mistakes=LITTLE_MISTAKES,
    )
    _check_own_run(in_flight, [trace for trace in to_list(traces) or [] if isinstance(trace, Trace)])


def _requests_in_flight(traces: Sequence[Trace]) -> float:
    return completion_rate(traces) * mean_latency(traces)


def _check_own_run(in_flight: Callable[[Sequence[Trace]], float], traces: Sequence[Trace]) -> None:
    answered = [trace for trace in traces if trace.arrivals and not trace.error]
    require(
        answered,
        "The function is right, but your run has no answered request. Run the cell of the calm load again.",
    )
    output = require_number(in_flight(answered), subject="For your own run the function")
    expected = _requests_in_flight(answered)
    require(
        close(output, expected, 0.05),
        f"For your own run of {len(answered)} requests I get {expected:.4g} in flight, you {output:.4g}.",
    )
