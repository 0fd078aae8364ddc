"""The exercises of lesson 02."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isclose

from engineroom.load import stats
from engineroom.load.sweep import Point
from engineroom.load.trace import Trace
from labs.kit.check import Mistake, exercise, require, require_function, require_number

TRACE = Trace(sent=10.0, arrivals=[10.5, 10.6, 10.8, 11.0, 11.3])
RUN = [
    Trace(sent=0.0, arrivals=[0.2, 0.4, 0.6]),
    Trace(sent=1.0, arrivals=[1.9, 2.0, 2.1]),
    Trace(sent=2.0, arrivals=[2.1, 3.1, 4.1]),
    Trace(sent=3.0, arrivals=[3.3, 3.5, 3.7, 3.9, 4.0]),
]  # a run of 4.1 seconds with 14 tokens
GOAL = stats.SLO(ttft=0.5, tpot=0.3)


def near(actual: object, expected: float) -> bool:
    return isinstance(actual, int | float) and isclose(actual, expected, rel_tol=1e-6, abs_tol=1e-9)


@exercise("02.latency", version=1, title="Four latencies from raw timestamps", minutes=8)
def latency(latencies: Callable[[Trace], dict[str, object]]) -> None:
    require_function(latencies, "latencies")
    output = latencies(TRACE)
    keys = {"ttft", "e2e", "tpot", "itl"}
    require(
        isinstance(output, dict) and keys <= output.keys(),
        "Return a dictionary with the keys ttft, e2e, tpot, itl.",
    )
    unfinished = [key for key, value in output.items() if value is ...]
    require(not unfinished, f"One value is still `...`: {', '.join(unfinished)}.")
    _check_waits(output["ttft"], output["e2e"])
    _check_gaps(output["itl"])
    _check_per_token(output["tpot"])


def _check_waits(ttft: object, e2e: object) -> None:
    require(
        not near(ttft, 10.5) and not near(e2e, 11.3),
        "`ttft` or `e2e` is a clock reading. Subtract the moment of sending, `trace.sent`.",
    )
    require(not near(ttft, 500) and not near(e2e, 1300), "Those are milliseconds. Return seconds.")
    require(
        near(ttft, 0.5),
        f"`ttft` is {ttft}. It is the time from `trace.sent` to the first of `trace.arrivals`.",
    )
    require(not near(e2e, 0.8), "`e2e` leaves out the wait for the first token. It begins at `trace.sent`.")
    require(
        near(e2e, 1.3), f"`e2e` is {e2e}. It is the time from `trace.sent` to the last of `trace.arrivals`."
    )


def _check_gaps(itl: object) -> None:
    if not isinstance(itl, Sequence) or len(itl) == 5:
        raise Mistake(
            "`itl` is a list with one gap for each token **but the first**: five tokens have four gaps."
        )
    expected_gaps = [0.1, 0.2, 0.2, 0.3]
    require(
        len(itl) == 4 and all(map(near, itl, expected_gaps)),
        "`itl` is not right. Each gap is one arrival minus the arrival before it.",
        "`[b - a for a, b in zip(trace.arrivals, trace.arrivals[1:])]`",
    )


def _check_per_token(tpot: object) -> None:
    require(
        not near(tpot, 0.16) and not near(tpot, 0.26),
        "`tpot` divides by the number of gaps, one less than the number of tokens: the first token belongs to TTFT.",
    )
    require(not near(tpot, 1.3 / 4), "`tpot` leaves TTFT out. Subtract TTFT from `e2e` before you divide.")
    require(near(tpot, 0.2), f"`tpot` is {tpot}. It is `(e2e - ttft) / (number of tokens - 1)`.")


@exercise("02.percentile", version=1, title="The percentile that users feel", minutes=4)
def percentile(p99: Callable[[Sequence[float]], float]) -> None:
    require_function(p99, "p99")
    values = [0.1] * 195 + [1.0, 2.0, 3.0, 4.0, 9.0]
    output = p99(list(values[::-1]))
    mean = sum(values) / len(values)
    mistakes = {
        mean: "That is the mean: it hides the slowest. Of 200 sorted values, about the 198th is "
        "the 99th percentile.",
        9.0: "That is the maximum. One percent of the requests may be slower than the 99th percentile.",
        0.1: "That is too early in the list. Are the values sorted before you pick one?",
    }
    require_number(output, mistakes)
    require(
        2.0 <= output <= 4.0,
        f"Of 195 values 0.1 and then 1, 2, 3, 4, 9, your 99th percentile is {output}. It should be between 2 and 4.",
        "`sorted(values)[round(0.99 * (len(values) - 1))]`, or numpy's `percentile(values, 99)`.",
    )


@exercise("02.goodput", version=1, title="Throughput, and the part of it that keeps a promise", minutes=7)
def goodput(
    throughput: Callable[[Sequence[Trace]], float], goodput: Callable[[Sequence[Trace], stats.SLO], float]
) -> None:
    token_rate = throughput(RUN)
    request_rate = goodput(RUN, GOAL)
    require(
        isinstance(token_rate, int | float) and isinstance(request_rate, int | float),
        f"The functions gave {token_rate!r} and {request_rate!r}; both must be numbers. Do they `return`?",
    )
    _check_throughput(token_rate)
    _check_goodput(request_rate)


def _check_throughput(token_rate: float) -> None:
    require(
        not near(token_rate, 14),
        "`throughput` gave the number of tokens. For a rate per second, divide by the run's duration.",
    )
    require(
        not near(token_rate, 4 / 4.1),
        "`throughput` counts requests. Count output tokens per second.",
    )
    summed_latencies = sum(stats.e2e(trace) for trace in RUN)
    require(
        not near(token_rate, 14 / summed_latencies),
        "You divided by the sum of all latencies. They overlap: take the time from first request to last token.",
    )
    require(
        near(token_rate, 14 / 4.1),
        f"`throughput` is {token_rate:.4g}. All output tokens, over the time from first `sent` to last arrival.",
    )


def _check_goodput(request_rate: float) -> None:
    require(
        not near(request_rate, 2),
        "`goodput` gave a count. For a rate per second, divide by the run's duration.",
    )
    require(not near(request_rate, 0.5), "`goodput` gave a share. It is a rate: good requests per second.")
    require(
        not near(request_rate, 3 / 4.1),
        "`goodput` counts a request that breaks one of the two limits. Both must hold: TTFT and TPOT.",
    )
    require(not near(request_rate, 8 / 4.1), "`goodput` counts requests, not tokens.")
    require(
        near(request_rate, 2 / 4.1),
        f"`goodput` is {request_rate:.4g}. Requests with TTFT and TPOT within their limits, over the run's duration.",
    )


@exercise("02.max_rate", version=1, title="The highest rate that keeps the promise", minutes=5)
def max_rate(highest_rate: Callable[[Sequence[Point], stats.SLO], float]) -> None:
    require_function(highest_rate, "highest_rate")

    fast = Trace(0.0, arrivals=[0.1, 0.2])
    slow = Trace(0.0, arrivals=[5.0, 5.1])
    fast_requests = {2.0: 100, 4.0: 95, 6.0: 89, 8.0: 60}  # of 100, by rate
    points = [Point(rate, [fast] * count + [slow] * (100 - count)) for rate, count in fast_requests.items()]
    output = highest_rate(points, GOAL)
    mistakes = dict.fromkeys(
        (1.0, 0.95, 0.89, 0.6),
        "That is a share. The answer is a **rate**: the requests per second that may be offered.",
    ) | {
        8.0: "At that rate four of ten users are let down. Consider only points whose share is 0.9 or more.",
        6.0: "At that rate the share is 0.89: close, but the promise is 0.9.",
        2.0: "That is the safest rate. A higher one keeps the promise as well.",
    }
    require_number(output, mistakes)
    require(
        near(output, 4.0),
        f"Shares of 1.00, 0.95, 0.89 and 0.60 at rates 2, 4, 6 and 8 gave {output}; 0.9 is needed.",
        "`max(point.rate for point in points if point.share(slo) >= 0.9)`",
    )
    require(
        highest_rate(points[2:], GOAL) == 0,
        "When no rate keeps the promise, the function should return 0. Try `max(…, default=0)`.",
    )


@exercise("02.little", version=1, title="Little's law on your own data", minutes=5)
def little(in_flight: Callable[[Sequence[Trace]], float], traces: Sequence[Trace]) -> None:
    require_function(in_flight, "in_flight")
    output = in_flight(RUN)
    summed_latencies = sum(map(stats.e2e, RUN))
    mean_latency = summed_latencies / len(RUN)
    waiting_requests = sum(map(stats.ttft, RUN)) / 4.1
    mistakes = {
        waiting_requests: "That takes TTFT as the time in the system. A request stays until its **last** token.",
        summed_latencies: "That is the sum of all latencies. The law has the rate times the **mean** latency.",
        mean_latency: "That is the mean latency. Times requests per second, it is the number in flight.",
        4 / 4.1: "That is the rate. Times the mean latency, it is the number in flight.",
    }
    require_number(output, mistakes)
    require(
        near(output, summed_latencies / 4.1),
        f"The four requests gave {output:.4g}. Multiply the requests per second of the run by the mean end-to-end "
        "latency.",
        "`len(traces) / duration(traces) * mean`, where mean is the mean of `load.e2e(trace)`.",
    )
    answered = [trace for trace in traces if trace.arrivals]
    require(in_flight(answered) > 0, "On your own run the function says that no request was in flight.")
