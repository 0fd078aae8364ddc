"""Latency and throughput from raw traces, as vLLM's benchmark defines them (vllm/benchmarks/serve.py).

All times are in seconds. For a trace that failed or has no token, functions that take one trace raise LoadError;
functions that take several traces count it as a request that missed its SLO.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engineroom.load.client import Trace
from engineroom.load.errors import LoadError


def ttft(trace: Trace) -> float:
    """Time to first token: from sending the request to its first token. Raises LoadError without tokens."""
    if trace.error or not trace.arrivals:
        raise LoadError(f"This request has no tokens: {trace.error or 'the answer was empty'}.")
    return trace.arrivals[0] - trace.sent


def e2e(trace: Trace) -> float:
    """End-to-end latency: from sending the request to its last token."""
    ttft(trace)
    return trace.arrivals[-1] - trace.sent


def itl(trace: Trace) -> list[float]:
    """Inter-token latencies: the gap before each token but the first."""
    return [later - earlier for earlier, later in pairwise(trace.arrivals)]


def tpot(trace: Trace) -> float:
    """Time per output token after the first: (e2e - ttft) / (tokens - 1), or 0 for a single token."""
    return (e2e(trace) - ttft(trace)) / max(len(trace.arrivals) - 1, 1)


def percentile(values: Sequence[float], q: float) -> float:
    """The value that ``q`` percent of ``values`` do not exceed, interpolated linearly (numpy's default).

    Raises LoadError for an empty list.
    """
    if not len(values):
        raise LoadError("There is no percentile of an empty list: did every request fail?")
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
    """Seconds from the first request to the last token. Raises LoadError when no request has a token."""
    traces = list(traces)
    ends = [trace.arrivals[-1] for trace in traces if trace.arrivals]
    if not ends:
        reason = f"The first error: {traces[0].error}" if traces else "There were no requests"
        raise LoadError(f"No request got an answer. {reason}.")
    return max(ends) - min(trace.sent for trace in traces)


def throughput(traces: Sequence[Trace]) -> float:
    """Output tokens per second over the whole run."""
    return sum(len(trace.arrivals) for trace in traces) / duration(traces)


def goodput(traces: Sequence[Trace], slo: SLO) -> float:
    """Requests per second that met the SLO, as in DistServe (OSDI 2024), over the whole run."""
    return sum(meets(trace, slo) for trace in traces) / duration(traces)


def summary(traces: Sequence[Trace]) -> dict[str, float]:
    """The numbers of a load test: requests and tokens per second, p50 and p99 of each latency in seconds.

    Raises LoadError when no request was answered.
    """
    completed = [trace for trace in traces if trace.arrivals and not trace.error]
    result = {
        "completed": len(completed),
        "failed": len(traces) - len(completed),
        "requests_per_s": len(completed) / duration(traces),
        "tokens_per_s": throughput(traces),
    }
    latencies = {
        "ttft": [ttft(trace) for trace in completed],
        "tpot": [tpot(trace) for trace in completed],
        "itl": [gap for trace in completed for gap in itl(trace)] or [0.0],
        "e2e": [e2e(trace) for trace in completed],
    }
    for name, seconds in latencies.items():
        result |= {f"{name}_p50": percentile(seconds, 50), f"{name}_p99": percentile(seconds, 99)}
    return result
