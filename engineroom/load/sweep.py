"""Open-loop runs at rising request rates: up to which rate does the service keep its promise?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from engineroom.kit.process import Server
from engineroom.load.drive import closed_loop, open_loop, random_prompts
from engineroom.load.stats import SLO, goodput, meets, summary
from engineroom.load.trace import Trace


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
    """Run open loops of about ``seconds`` each, at ``first_rate`` and then at ``factor`` times the rate before.

    A progress bar is shown. The sweep ends when fewer than half of the requests met ``slo`` in two runs (a single
    run may be bad luck), or after ``max_runs`` runs.
    """
    points: list[Point] = []
    with tqdm(total=max_runs, desc="request rates") as bar:
        for run in range(max_runs):
            rate = first_rate * factor**run
            prompts = random_prompts(max(8, round(rate * seconds)), tokens, seed=run)
            traces = await open_loop(server, prompts, max_tokens, rate, ignore_eos=True, **body)
            points.append(Point(rate, traces))
            bar.update()
            if sum(point.share(slo) < 0.5 for point in points) == 2:
                break
        bar.total = bar.n  # a sweep that ends early is complete too
    return points
