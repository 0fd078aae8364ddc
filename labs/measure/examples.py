"""Small runs on which right and wrong formulas of lesson 02 differ. Times are in seconds."""

from __future__ import annotations

import numpy as np

from engineroom.load.stats import SLO
from engineroom.load.sweep import Point
from engineroom.load.trace import Trace

GOAL = SLO(ttft=0.5, tpot=0.3)
TRACES = {
    "a request sent at 10.0 s": Trace(sent=10.0, arrivals=[10.5, 10.6, 10.8, 11.0, 11.3]),
    "a request sent at 3.25 s": Trace(sent=3.25, arrivals=[4.0, 4.02, 4.9, 4.95, 5.03, 5.2, 5.21]),
}
RUN = [
    Trace(sent=0.0, arrivals=[0.2, 0.4, 0.6]),
    Trace(sent=1.0, arrivals=[1.9, 2.0, 2.1]),  # TTFT 0.9
    Trace(sent=2.0, arrivals=[2.1, 3.1, 4.1]),  # TPOT 1
    Trace(sent=3.0, arrivals=[3.3, 3.5, 3.7, 3.9, 4.0]),
]  # a run of 4.1 seconds with 14 tokens
STALLS = [
    Trace(sent=100.5, arrivals=[100.8, 101.25, 101.35, 101.75, 102.2]),  # TPOT 0.35
    Trace(sent=100.0, arrivals=[100.3, 100.4, 100.9, 101.0, 101.1]),  # one gap of 0.5, yet TPOT 0.2
    Trace(sent=101.0, arrivals=[101.7, 101.8, 101.9]),  # TTFT 0.7
    Trace(sent=102.25, arrivals=[102.65, 102.9, 103.15, 103.4, 103.65, 103.97]),  # TPOT 0.264
    Trace(sent=103.0, arrivals=[103.1, 103.2, 103.3, 103.4, 104.5]),  # TPOT 0.35, median gap 0.1
    Trace(sent=102.0, arrivals=[102.2, 102.3, 102.4, 102.5]),
]  # a run of 4.5 seconds with 28 tokens, not in the order of sending


def _busy_run(num_requests: int) -> list[Trace]:
    """Requests around both limits of GOAL, many at a time."""
    random = np.random.default_rng(2)
    traces: list[Trace] = []
    for sent in np.cumsum(random.exponential(0.2, num_requests)):
        first = sent + random.lognormal(-1.0, 0.6)
        gaps = random.lognormal(-1.5, 0.8, random.integers(1, 12))
        traces.append(Trace(float(sent), (first + np.cumsum([0.0, *gaps])).tolist()))
    return traces


RUNS = {
    "4 requests in 4.1 s": RUN,
    "6 requests in 4.5 s": STALLS,
    "a run of 50 requests": _busy_run(50),
}


def _latency_samples(num_samples: int) -> list[float]:
    """Latencies as a busy server has them: many short, some long; not sorted."""
    return np.random.default_rng(num_samples).lognormal(-1.0, 1.0, num_samples).tolist()


SAMPLES = {f"{size} latencies": (_latency_samples(size),) for size in (200, 500, 1000)}


def sweep_of(shares: dict[float, int]) -> list[Point]:
    """A sweep with this percentage of requests within GOAL at each rate."""
    fast, slow = Trace(0.0, arrivals=[0.1, 0.2]), Trace(0.0, arrivals=[5.0, 5.1])
    return [Point(rate, [fast] * share + [slow] * (100 - share)) for rate, share in shares.items()]


SWEEPS = {
    "shares of 1, 0.95, 0.89 and 0.6 at 2.1, 4.3, 6.2 and 8.7 requests/s": (
        sweep_of({2.1: 100, 4.3: 95, 6.2: 89, 8.7: 60}),
        GOAL,
    ),
    "shares of 1, 0.98, 0.93, 0.9, 0.7 and 0.3 at 1.2, 1.7, 2.4, 3.3, 4.6 and 6.4 requests/s": (
        sweep_of({1.2: 100, 1.7: 98, 2.4: 93, 3.3: 90, 4.6: 70, 6.4: 30}),
        GOAL,
    ),
    "shares of 1, 0.99 and 0.97 at 0.8, 1.15 and 1.6 requests/s": (
        sweep_of({0.8: 100, 1.15: 99, 1.6: 97}),
        GOAL,
    ),
}
NEVER = sweep_of({3.0: 60, 5.0: 40})
