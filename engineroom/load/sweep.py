"""Open-loop runs at rising request rates: up to which rate does the service keep its promise?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from engineroom.kit.process import Server
from engineroom.load.drive import closed_loop, open_loop, random_prompts
from engineroom.load.stats import SLO, goodput, meets, summary
from engineroom.load.trace import Trace

PROMISE = 0.9  # share of requests that must meet the SLO
MAX_FIRST_RATES = 3


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the requests per second that were offered, and a trace of each request."""

    rate: float
    traces: list[Trace]

    def share(self, slo: SLO) -> float:
        """Share of requests that met the SLO, 0 to 1."""
        return sum(meets(trace, slo) for trace in self.traces) / len(self.traces)

    def goodput(self, slo: SLO) -> float:
        """Requests per second that met the SLO."""
        return goodput(self.traces, slo)

    def summary(self) -> dict[str, float]:
        return {"rate": self.rate} | summary(self.traces)


async def capacity(server: Server, tokens: int, max_tokens: int, users: int = 16, **body: Any) -> float:
    """Requests per second that the server completes while ``users`` clients keep it busy: about its maximum."""
    prompts = random_prompts(4 * users, tokens, seed=99)
    traces = await closed_loop(server, prompts, max_tokens, users, ignore_eos=True, **body)
    return summary(traces)["requests_per_s"]


async def sweep(
    server: Server, slo: SLO, first_rate: float, tokens: int, max_tokens: int, *, seconds: float = 8,
    factor: float = 1.4, max_runs: int = 9, **body: Any,
) -> list[Point]:  # fmt: skip
    """Run open loops of about ``seconds`` each at rising rates, ``factor`` apart; the points are sorted by rate.

    The first rate is ``first_rate``, or half or a quarter of it when fewer than PROMISE of the requests meet ``slo``
    there. The sweep ends when fewer than half of the requests met ``slo`` in two of the rising runs (a single run may
    be bad luck), when no first rate is low enough, or after ``max_runs`` runs. A progress bar is shown.
    """
    points: list[Point] = []

    async def measure(rate: float) -> float:
        prompts = random_prompts(max(8, round(rate * seconds)), tokens, seed=len(points))
        traces = await open_loop(server, prompts, max_tokens, rate, ignore_eos=True, **body)
        points.append(Point(rate, traces))
        bar.update()
        return points[-1].share(slo)

    with tqdm(total=max_runs, desc="request rates") as bar:
        rate = first_rate
        while await measure(rate) < PROMISE and len(points) < MAX_FIRST_RATES:
            rate /= 2
        num_missed = 0 if points[-1].share(slo) >= PROMISE else 2
        while num_missed < 2 and len(points) < max_runs:
            rate *= factor
            num_missed += await measure(rate) < 0.5
        bar.total = bar.n  # a sweep that ends early is complete too
    return sorted(points, key=lambda point: point.rate)
