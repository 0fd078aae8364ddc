"""Latency and throughput from raw traces, as vLLM's benchmark defines them (vllm/benchmarks/serve.py).

All times are in seconds. For a trace that failed or has no token, functions that take one trace raise LoadError;
functions that take several traces count it as a request that missed its SLO.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engineroom.load.errors import LoadError
from engineroom.load.trace import Trace


def ttft(trace: Trace) -> float:
    """Time to first token: from sending the request to its first token. Raises LoadError without tokens."""
    if trace.error:
        raise LoadError(f"This request failed, so it has no latencies: {trace.error}")
    if not trace.arrivals:
        raise LoadError("This request has no tokens: the answer was empty.")
    return trace.arrivals[0] - trace.sent


def e2e(trace: Trace) -> float:
    """End-to-end latency: from sending the request to its last token.

    When the server does not tell when each token came, the chunk with the finish reason counts as the last.
    """
    return ttft(trace) + _decode_seconds(trace)


def itl(trace: Trace) -> list[float]:
    """Inter-token latencies: the gap before each chunk with tokens but the first; tokens of one chunk have no gap."""
    return [later - earlier for earlier, later in pairwise(trace.arrivals) if later != earlier]


def tpot(trace: Trace) -> float:
    """Time per output token after the first: (e2e - ttft) / (tokens - 1).

    Raises LoadError for an answer of one token, which has no TPOT, and when the number of tokens is unknown.
    """
    ttft(trace)
    if output_tokens(trace) < 2:
        raise LoadError("An answer of one token has no TPOT, the time per token after the first.")
    return _decode_seconds(trace) / (output_tokens(trace) - 1)


def tpots(traces: Iterable[Trace]) -> list[float]:
    """TPOT of each answer of two tokens or more. Raises LoadError when the number of tokens is unknown."""
    return [tpot(trace) for trace in traces if _completed(trace) and output_tokens(trace) > 1]


def output_tokens(trace: Trace) -> int:
    """Number of output tokens. Raises LoadError when the server did not tell it."""
    if trace.output_tokens is None:
        raise LoadError(
            "The number of output tokens is unknown: the server sent no usage. TTFT, ITL and the end-to-end latency "
            "can be measured, TPOT and tokens per second cannot. Use a server that supports "
            "stream_options.include_usage."
        )
    return trace.output_tokens


def _decode_seconds(trace: Trace) -> float:
    """Seconds from the first token to the end of the answer."""
    return _end(trace) - trace.arrivals[0]


def _end(trace: Trace) -> float:
    return max(trace.arrivals[-1], trace.finished or trace.arrivals[-1])


def _completed(trace: Trace) -> bool:
    return not trace.error and bool(trace.arrivals)


def percentile(values: Sequence[float], q: float) -> float:
    """The value that ``q`` percent of ``values`` do not exceed, interpolated linearly (numpy's default).

    Raises LoadError for an empty list.
    """
    if not len(values):
        raise LoadError(
            "There is no percentile of an empty list: did every request fail, or has every answer one token?"
        )
    return float(np.percentile(values, q))


@dataclass(frozen=True)
class SLO:
    """A service level objective for one request: limits for TTFT and TPOT in seconds."""

    ttft: float
    tpot: float


def meets(trace: Trace, slo: SLO) -> bool:
    """True when the request was answered within both limits. An answer of one token has only a TTFT to meet.

    Raises LoadError when the number of tokens is unknown.
    """
    return (
        _completed(trace) and ttft(trace) <= slo.ttft and all(value <= slo.tpot for value in tpots([trace]))
    )


def duration(traces: Iterable[Trace]) -> float:
    """Seconds from the first request to the last token. Raises LoadError when no request has a token."""
    traces = list(traces)
    ends = [_end(trace) for trace in traces if trace.arrivals]
    if not ends:
        errors = [trace.error for trace in traces if trace.error]
        reason = f"The first error: {errors[0]}" if errors else "The answers were empty."
        raise LoadError(f"No request got an answer. {reason if traces else 'There were no requests.'}")
    return max(ends) - min(trace.sent for trace in traces)


def throughput(traces: Sequence[Trace]) -> float:
    """Output tokens of the completed requests per second over the whole run.

    Raises LoadError when the number of tokens of a completed request is unknown.
    """
    return sum(output_tokens(trace) for trace in traces if _completed(trace)) / duration(traces)


def goodput(traces: Sequence[Trace], slo: SLO) -> float:
    """Requests per second that met the SLO, as in DistServe (OSDI 2024), over the whole run."""
    return sum(meets(trace, slo) for trace in traces) / duration(traces)


def summary(traces: Sequence[Trace]) -> dict[str, float]:
    """The numbers of a load test: requests and tokens per second, p50 and p99 of each latency in seconds.

    A value is nan where there is none: TPOT and ITL when all answers have one token; TPOT and tokens per second when
    the server does not tell the number of tokens. Raises LoadError when no request was answered.
    """
    completed = [trace for trace in traces if _completed(trace)]
    counted = all(trace.output_tokens is not None for trace in completed)
    result = {
        "completed": len(completed),
        "failed": len(traces) - len(completed),
        "requests_per_s": len(completed) / duration(traces),
        "tokens_per_s": throughput(traces) if counted else math.nan,
    }
    latencies = {
        "ttft": [ttft(trace) for trace in completed],
        "tpot": (tpots(completed) if counted else []) or [math.nan],
        "itl": [gap for trace in completed for gap in itl(trace)] or [math.nan],
        "e2e": [e2e(trace) for trace in completed],
    }
    for name, seconds in latencies.items():
        result |= {f"{name}_p50": percentile(seconds, 50), f"{name}_p99": percentile(seconds, 99)}
    return result
