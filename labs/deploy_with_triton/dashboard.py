"""The dashboard in a notebook, without Prometheus or Grafana: scrape while a load runs, then draw the same panels.

with dashboard.watching(triton.metrics, openai=f"{front.url}/metrics") as seen:
    ...  # the load
dashboard.draw(seen)
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from engineroom.metrics.panels import JOBS, PANELS, ROWS, UNITS, Panel, Query
from engineroom.metrics.prometheus import parse
from engineroom.metrics.promql import Labels
from labs.kit import show

COLOURS = dict(zip(JOBS, (show.GREEN, show.BLUE, show.ORANGE, show.PURPLE), strict=True))
MODELS = (show.BLUE, show.ORANGE, show.GREEN, show.RED, show.PURPLE)
POINTS = 200  # of a line
NAMES = set(
    re.findall(
        r"[a-zA-Z_][\w:]*(?=\{)", " ".join(q.expression.query("", "") for p in PANELS for q in p.queries)
    )
)


@dataclass
class Seen:
    """What was scraped: (Unix time in seconds, value) by metric and labels, as Prometheus keeps it.

    `addresses`: of each job, its /metrics.
    """

    addresses: dict[str, str]
    samples: dict[str, dict[Labels, list[tuple[float, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def scrape(self, http: httpx.Client) -> None:
        """Ask each server once; one that does not answer, or not in Prometheus' format, is down."""
        for job, address in self.addresses.items():
            now, up = time.time(), 1.0
            try:
                for sample in parse(http.get(address).raise_for_status().text, NAMES):
                    labels = frozenset({**sample.labels, "job": job}.items())
                    self.samples[sample.name][labels].append((now, sample.value))
            except (httpx.HTTPError, ValueError):
                up = 0.0
            self.samples["up"][frozenset({("job", job)})].append((now, up))

    def times(self, job: str) -> list[float]:
        return [now for now, _ in self.samples["up"].get(frozenset({("job", job)}), [])]


@contextmanager
def watching(triton: str | None = None, *, openai: str | None = None, engine: str | None = None,
             vllm: str | None = None, interval: float = 0.5) -> Iterator[Seen]:  # fmt: skip
    """Scrape the addresses of /metrics every `interval` seconds while the block runs, and once more at its end.

    `openai` is the OpenAI API before Triton, `engine` the engine's own server. Raises ValueError without an address.
    """
    given = dict(triton=triton, openai=openai, engine=engine, vllm=vllm)
    seen, done = Seen({job: address for job, address in given.items() if address}), threading.Event()
    if not seen.addresses:
        raise ValueError("No address was given; give that of a server's metrics, such as triton.metrics.")

    def scrape() -> None:
        with httpx.Client(timeout=2, trust_env=False) as http:
            while not done.wait(interval):
                seen.scrape(http)
            seen.scrape(http)

    thread = threading.Thread(target=scrape, name="scrape", daemon=True)
    with httpx.Client(timeout=2, trust_env=False) as http:
        seen.scrape(http)  # before the load, so that counters have a beginning
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join(timeout=2 * len(seen.addresses) + 2)


def lines(query: Query, seen: Seen, window: float) -> dict[str, tuple[list[float], list[float]]]:
    """By legend: Unix times and values, at up to POINTS scrapes where there is a value."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    times = seen.times(query.job)
    for now in times[:: len(times) // POINTS + 1]:
        for key, value in query.expression.evaluate(seen.samples, query.job, window, now).items():
            if math.isfinite(value):
                line = found.setdefault(re.sub(r"{{\w+}}", key, query.legend), ([], []))
                line[0].append(now)
                line[1].append(value)
    return found


def draw(seen: Seen, window: float = 5) -> None:
    """The panels of the servers that were watched; rates are over `window` seconds. One line for each legend.

    Raises ValueError when there are fewer than two scrapes.
    """
    jobs = [job for job in seen.addresses if len(seen.times(job)) > 1]
    if not jobs:
        raise ValueError("Fewer than two scrapes: watch for longer than the interval.")
    begin = min(seen.times(job)[0] for job in jobs)
    told = [f"The dashboard of {', '.join(jobs)}, {len(PANELS)} panels."]
    size, columns = len(ROWS), max(map(len, ROWS.values()))
    with show.picture(told, size, columns, size=(4 * columns, 2.3 * size), sharex=True) as (_, grid):
        for axes, panel in zip(grid.flat, PANELS, strict=True):
            told.append(_panel(axes, panel, seen, window, begin))
        for axes in grid[-1]:
            axes.set_xlabel("seconds")


def _panel(axes: Any, panel: Panel, seen: Seen, window: float, begin: float) -> str:
    """Draw one; the sentence that says what it shows."""
    from matplotlib.ticker import EngFormatter  # slow to import

    said = []
    for query in panel.queries:
        for place, (legend, line) in enumerate(sorted(lines(query, seen, window).items())):
            by_model = "{{" in query.legend
            first = place if by_model else JOBS.index(query.job)  # drawn under the others
            axes.plot(
                [one - begin for one in line[0]],
                line[1],
                ":" if legend.endswith("p50") else "-",
                color=MODELS[place % len(MODELS)] if by_model else COLOURS[query.job],
                label=legend,
                linewidth=max(1, 2.8 - 0.6 * first),  # of equal lines all are seen
            )
            said.append(f"{legend} at most {max(line[1]):.3g}")
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_ylabel(UNITS[panel.unit], fontsize=8)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the legend
    axes.tick_params(labelsize=8)
    if panel.unit == "s":
        axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
    if said:
        axes.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper left")
    return f"{panel.title}, {UNITS[panel.unit]}: {', '.join(said) or 'nothing to show'}."
