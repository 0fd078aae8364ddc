"""Latency and throughput from raw traces, as vLLM's benchmark defines them (vllm/benchmarks/serve.py).

All times in seconds. A trace that failed or has no token is refused by the functions of one trace and counts as
missed in those of many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engineroom.load.client import Trace


def ttft(trace: Trace) -> float:
    """Time to first token: from sending the request to its first token. Raises ValueError without tokens."""
    if trace.error or not trace.arrivals:
        raise ValueError(f"This request has no tokens: {trace.error or 'the answer was empty'}.")
    return trace.arrivals[0] - trace.sent


def e2e(trace: Trace) -> float:
    """End-to-end latency: from sending the request to its last token."""
    ttft(trace)
    return trace.arrivals[-1] - trace.sent


def itl(trace: Trace) -> list[float]:
    """Inter-token latencies: the gap before each token but the first."""
    return [later - earlier for earlier, later in pairwise(trace.arrivals)]


def tpot(trace: Trace) -> float:
    """Time per output token after the first: (e2e - ttft) / (tokens - 1); 0 for a single token."""
    return (e2e(trace) - ttft(trace)) / max(len(trace.arrivals) - 1, 1)


def percentile(values: Sequence[float], q: float) -> float:
    """The value that ``q`` percent of ``values`` do not exceed, interpolated linearly (numpy's default)."""
    if not len(values):
        raise ValueError("There is no percentile of an empty list: did every request fail?")
    return float(np.percentile(values, q))


@dataclass(frozen=True)
class SLO:
    """A service level objective for one request: limits for TTFT and TPOT in seconds."""

    ttft: float
    tpot: float


def meets(trace: Trace, slo: SLO) -> bool:
    """True when the request was answered within both limits."""
    return not trace.error and bool(trace.arrivals) and ttft(trace) <= slo.ttft and tpot(trace) <= slo.tpot


def duration(traces: Iterable[Trace]) -> float:
    """Seconds from the first request sent to the last token of all."""
    traces = list(traces)
    ends = [trace.arrivals[-1] for trace in traces if trace.arrivals]
    if not ends:
        raise ValueError(
            f"No request got an answer; the first error: {traces[0].error if traces else 'no requests'}."
        )
    return max(ends) - min(trace.sent for trace in traces)


def throughput(traces: Sequence[Trace]) -> float:
    """Output tokens per second over the whole run."""
    return sum(len(trace.arrivals) for trace in traces) / duration(traces)


def goodput(traces: Sequence[Trace], slo: SLO) -> float:
    """Requests per second that met the SLO; as in DistServe (OSDI 2024), counted over the whole run."""
    return sum(meets(trace, slo) for trace in traces) / duration(traces)


def summary(traces: Sequence[Trace]) -> dict[str, float]:
    """The numbers of a load test: requests and tokens per second, p50 and p99 of each latency in seconds."""
    done = [trace for trace in traces if trace.arrivals and not trace.error]
    seconds = duration(traces)
    result = {
        "completed": len(done),
        "failed": len(traces) - len(done),
        "requests_per_s": len(done) / seconds,
    }
    result |= {"tokens_per_s": throughput(traces)}
    gaps = [gap for trace in done for gap in itl(trace)] or [0.0]
    values = {"ttft": map(ttft, done), "tpot": map(tpot, done), "itl": gaps, "e2e": map(e2e, done)}
    for name, series in values.items():
        series = list(series)
        result |= {f"{name}_p50": percentile(series, 50), f"{name}_p99": percentile(series, 99)}
    return result
