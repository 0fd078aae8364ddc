"""Open-loop runs at rising request rates: where does the service stop keeping its promise?"""

from __future__ import annotations

from dataclasses import dataclass

from tqdm.auto import tqdm

from engineroom.kit.process import Server
from engineroom.load.client import Trace
from engineroom.load.drive import closed_loop, open_loop, random_prompts
from engineroom.load.stats import SLO, goodput, meets, summary


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
    server: Server, slo: SLO, first: float, tokens: int, max_tokens: int, *, seconds: float = 8, factor: float = 1.4,
    most: int = 9, **more: object,
) -> list[Point]:  # fmt: skip
    """Open-loop runs of about ``seconds`` each, from rate ``first`` up by ``factor``, with a progress bar.

    Ends when fewer than half of the requests met ``slo`` in two runs, one of which may have been bad luck, or after
    ``most`` runs.
    """
    points: list[Point] = []
    with tqdm(total=most, desc="request rates") as bar:
        for step in range(most):
            rate = first * factor**step
            prompts = random_prompts(max(8, round(rate * seconds)), tokens, seed=step)
            traces = await open_loop(server, prompts, max_tokens, rate, ignore_eos=True, **more)
            points.append(Point(rate, traces))
            bar.update()
            if sum(point.share(slo) < 0.5 for point in points) == 2:
                break
        bar.total = bar.n  # a sweep that ends early is done as well
    return points
