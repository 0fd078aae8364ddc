"""Right and wrong formulas for a whole run: throughput, goodput, the highest good rate, requests in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, median

from engineroom.load import stats
from engineroom.load.stats import SLO
from engineroom.load.sweep import Point
from engineroom.load.trace import Trace
from labs.kit.formula import Mistakes

Traces = Sequence[Trace]


def num_tokens(traces: Traces) -> int:
    return sum(len(trace.arrivals) for trace in traces)


def summed_latencies(traces: Traces) -> float:
    return sum(map(stats.e2e, traces))


def last_in_list(traces: Traces) -> float:
    """The duration of a run whose requests were sent and answered in the order of the list."""
    return traces[-1].arrivals[-1] - traces[0].sent


THROUGHPUT_MISTAKES: Mistakes = [
    (
        num_tokens,
        "`throughput` gave the number of tokens. For a rate per second, divide by the run's duration.",
    ),
    (
        lambda traces: len(traces) / stats.duration(traces),
        "`throughput` counts requests. Count output tokens per second.",
    ),
    (
        lambda traces: num_tokens(traces) / summed_latencies(traces),
        "You divided by the sum of all latencies. They overlap: take the time from first request to last token.",
    ),
    (
        lambda traces: (num_tokens(traces) - len(traces)) / stats.duration(traces),
        "`throughput` leaves out the first token of each answer.",
    ),
    (
        lambda traces: mean(len(trace.arrivals) / stats.e2e(trace) for trace in traces),
        "That is the mean speed of one request. Many run together: all tokens, over the duration of the run.",
    ),
    (
        lambda traces: num_tokens(traces) / last_in_list(traces),
        "The last request of the list is not always the last to end. Take `load.duration(traces)`.",
    ),
    (
        lambda traces: num_tokens(traces) / max(trace.arrivals[-1] for trace in traces),
        "You divided by a clock reading. The run takes `load.duration(traces)` seconds.",
    ),
    (
        lambda traces: stats.duration(traces) / num_tokens(traces),
        "That is the inverse: seconds per token.",
    ),
]


def rate_of(is_good: Callable[[Trace, SLO], bool]) -> Callable[[Traces, SLO], float]:
    """Requests per second of which ``is_good`` is true."""
    return lambda traces, slo: sum(is_good(trace, slo) for trace in traces) / stats.duration(traces)


def gap_rate(gap_of: Callable[[list[float]], float]) -> Callable[[Traces, SLO], float]:
    """Goodput with another figure of the gaps in place of TPOT."""
    return rate_of(lambda trace, slo: stats.ttft(trace) <= slo.ttft and gap_of(stats.itl(trace)) <= slo.tpot)


def per_token_rate(seconds: Callable[[Trace], float]) -> Callable[[Traces, SLO], float]:
    """Goodput with another time per token in place of TPOT."""
    return rate_of(lambda trace, slo: stats.ttft(trace) <= slo.ttft and seconds(trace) <= slo.tpot)


def good_share(traces: Traces, slo: SLO) -> float:
    return sum(stats.meets(trace, slo) for trace in traces) / len(traces)


BOTH_LIMITS = "`goodput` counts a request that breaks one of the two limits. Both must hold: TTFT and TPOT."
FIRST_TOKEN = "`goodput` takes TPOT with the first token. Its wait is TTFT: (end to end − TTFT) / gaps."
GOODPUT_MISTAKES: Mistakes = [
    (
        lambda traces, slo: sum(stats.meets(trace, slo) for trace in traces),
        "`goodput` gave a count. For a rate per second, divide by the run's duration.",
    ),
    (good_share, "`goodput` gave a share. It is a rate: good requests per second."),
    (
        lambda traces, slo: 100 * good_share(traces, slo),
        "`goodput` gave a percentage. It is a rate: good requests per second.",
    ),
    (rate_of(lambda trace, slo: stats.ttft(trace) <= slo.ttft), f"{BOTH_LIMITS} You look at TTFT alone."),
    (rate_of(lambda trace, slo: stats.tpot(trace) <= slo.tpot), f"{BOTH_LIMITS} You look at TPOT alone."),
    (
        rate_of(lambda trace, slo: stats.ttft(trace) <= slo.ttft or stats.tpot(trace) <= slo.tpot),
        f"{BOTH_LIMITS} Join them with `and`.",
    ),
    (rate_of(lambda trace, slo: True), "`goodput` counts every request. Count those within both limits."),
    (
        rate_of(lambda trace, slo: not stats.meets(trace, slo)),
        "`goodput` counts the requests that missed a limit. Count those within both.",
    ),
    (
        gap_rate(max),
        "`goodput` takes the longest gap for TPOT: one stall is not the mean. TPOT is (end to end − TTFT) / gaps.",
    ),
    (gap_rate(median), "`goodput` takes the median gap for TPOT, which is the mean."),
    (gap_rate(min), "`goodput` takes the shortest gap for TPOT, which is the mean."),
    (per_token_rate(lambda trace: stats.e2e(trace) / (len(trace.arrivals) - 1)), FIRST_TOKEN),
    (per_token_rate(lambda trace: stats.e2e(trace) / len(trace.arrivals)), FIRST_TOKEN),
    (
        per_token_rate(lambda trace: (stats.e2e(trace) - stats.ttft(trace)) / len(trace.arrivals)),
        "`goodput` divides by the number of tokens for TPOT. Divide by the gaps, one fewer.",
    ),
    (
        per_token_rate(lambda trace: stats.e2e(trace) - stats.ttft(trace)),
        "`goodput` takes all gaps together for TPOT. Divide by their number.",
    ),
    (per_token_rate(stats.e2e), "`goodput` compares the end-to-end latency with `slo.tpot`."),
    (
        lambda traces, slo: (
            num_tokens([trace for trace in traces if stats.meets(trace, slo)]) / stats.duration(traces)
        ),
        "`goodput` counts requests, not tokens.",
    ),
    (
        lambda traces, slo: sum(stats.meets(trace, slo) for trace in traces) / last_in_list(traces),
        "The last request of the list is not always the last to end. Take `load.duration(traces)`.",
    ),
]

Points = Sequence[Point]


def highest_rate(points: Points, slo: SLO, least_share: float = 0.9) -> float:
    return max((point.rate for point in points if point.share(slo) >= least_share), default=0)


SHARE = "That is a share. The answer is a **rate**: the requests per second that may be offered."
MAX_RATE_MISTAKES: Mistakes = [
    (lambda points, slo: max(point.share(slo) for point in points), SHARE),
    (lambda points, slo: min(point.share(slo) for point in points if point.share(slo) >= 0.9), SHARE),
    (
        lambda points, slo: max(point.rate for point in points if point.share(slo) > 0.9),
        "A share of exactly 0.9 keeps the promise: at least 0.9 is `>=`.",
    ),
    (
        lambda points, _: max(point.rate for point in points),
        "At that rate too many users are let down. Consider only points whose share is 0.9 or more.",
    ),
    (
        lambda points, slo: min(point.rate for point in points if point.share(slo) >= 0.9),
        "That is the safest rate. A higher one keeps the promise as well.",
    ),
    (
        lambda points, slo: highest_rate(points, slo, 0.8),
        "At that rate the share is 0.89: close, but the promise is 0.9.",
    ),
    (
        lambda points, slo: highest_rate(points, slo, 0.5),
        "You accept a share of 0.5. The promise is 0.9: at least 0.9 of the requests.",
    ),
    (
        lambda points, slo: highest_rate(points, slo, 0.95),
        "You ask for more than the promise: a share of 0.9 is enough.",
    ),
    (
        lambda points, slo: highest_rate(points, slo, 0.99),
        "You ask for more than the promise: a share of 0.9 is enough.",
    ),
    (
        lambda points, slo: highest_rate(points, slo, 90),
        "A share is between 0 and 1: compare it with 0.9, not 90.",
    ),
    (
        lambda points, slo: sum(point.share(slo) >= 0.9 for point in points),
        "That is how many points keep the promise. Return the highest `rate` among them.",
    ),
    (
        lambda points, slo: max(point.rate * point.share(slo) for point in points),
        "That is good requests per second. Return the **offered** rate of the best point, `point.rate`.",
    ),
    (
        lambda points, slo: max(point.goodput(slo) for point in points),
        "That is goodput. Return the **offered** rate of the best point, `point.rate`.",
    ),
]


def mean_latency(traces: Traces) -> float:
    return summed_latencies(traces) / len(traces)


def completion_rate(traces: Traces) -> float:
    return len(traces) / stats.duration(traces)


MEAN_RATE = "`len(traces) / load.duration(traces)` is the rate, in requests per second."
LITTLE_MISTAKES: Mistakes = [
    (
        lambda traces: sum(map(stats.ttft, traces)) / stats.duration(traces),
        "That takes TTFT as the time in the system. A request stays until its **last** token.",
    ),
    (
        lambda traces: sum(stats.e2e(trace) - stats.ttft(trace) for trace in traces) / stats.duration(traces),
        "That leaves TTFT out. A request is in the system from sending on.",
    ),
    (
        summed_latencies,
        "That is the sum of all latencies. The law has the rate times the **mean** latency.",
    ),
    (mean_latency, "That is the mean latency. Times requests per second, it is the number in flight."),
    (completion_rate, "That is the rate. Times the mean latency, it is the number in flight."),
    (lambda traces: len(traces), "That is the number of all requests. How many are in flight at a time?"),
    (
        lambda traces: completion_rate(traces) / mean_latency(traces),
        "You divided the rate by the latency. The law multiplies them.",
    ),
    (
        lambda traces: mean_latency(traces) / completion_rate(traces),
        "You divided the latency by the rate. The law multiplies them.",
    ),
    (
        lambda traces: num_tokens(traces) / stats.duration(traces) * mean_latency(traces),
        f"That takes tokens per second. The law needs the rate of requests. {MEAN_RATE}",
    ),
    (
        lambda traces: completion_rate(traces) * median(map(stats.e2e, traces)),
        "That takes the median latency. The law holds for the mean.",
    ),
    (
        lambda traces: completion_rate(traces) * max(map(stats.e2e, traces)),
        "That takes the longest latency. The law holds for the mean.",
    ),
    (
        lambda traces: len(traces) / last_in_list(traces) * mean_latency(traces),
        f"The last request of the list is not always the last to end. {MEAN_RATE}",
    ),
]
