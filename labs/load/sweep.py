"""Open-loop runs at rising request rates: where does the service stop keeping its promise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labs.kit import show
from labs.kit.process import Server
from labs.load.drive import closed_loop, open_loop, random_prompts
from labs.load.stats import SLO, goodput, meets, summary
from labs.serving.client import Trace


@dataclass(frozen=True)
class Point:
    """One run of a sweep: requests per second offered, and what came of it."""

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


async def capacity(server: Server, tokens: int, max_tokens: int, users: int = 16, **more: object) -> float:
    """Requests per second that the server completes with ``users`` always waiting: about the most it can do."""
    prompts = random_prompts(4 * users, tokens, seed=99)
    traces = await closed_loop(server, prompts, max_tokens, users, ignore_eos=True, **more)
    return summary(traces)["requests_per_s"]


async def sweep(
    server: Server, rates: Sequence[float], tokens: int, max_tokens: int, seconds: float = 8, **more: object
) -> list[Point]:
    """One open-loop run of about ``seconds`` for each rate, slowest first, with a progress bar."""
    points = []
    for rate in show.progress(sorted(rates), "request rates"):
        prompts = random_prompts(max(8, round(rate * seconds)), tokens, seed=round(1000 * rate))
        traces = await open_loop(server, prompts, max_tokens, rate, ignore_eos=True, **more)
        points.append(Point(rate, traces))
    return points
