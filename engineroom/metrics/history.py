"""The metrics of several servers over time, scraped in a notebook as Prometheus would, for the panels of panels.py."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from engineroom.kit.errors import UserError
from engineroom.kit.network import http_client
from engineroom.metrics.panels import PANELS
from engineroom.metrics.prometheus import parse
from engineroom.metrics.promql import Labels

QUERIES = " ".join(query.expression.query("", "") for panel in PANELS for query in panel.queries)
METRIC_NAMES = set(re.findall(r"[a-zA-Z_][\w:]*(?=\{)", QUERIES))  # only these are kept


class HistoryError(UserError, ValueError):
    """Metrics that cannot be recorded or shown; the message says what to do."""


@dataclass
class MetricsHistory:
    """Samples (Unix time in seconds, value) by metric and labels, as Prometheus keeps them; `job` is one of the labels.

    `addresses`: the address of each job's /metrics.
    """

    addresses: dict[str, str]
    series: dict[str, dict[Labels, list[tuple[float, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def scrape(self, http: httpx.Client) -> None:
        """Read each server's metrics once. A server that sends none, or none in Prometheus' format, counts as down."""
        for job, address in self.addresses.items():
            now, up = time.time(), 1.0
            try:
                for sample in parse(http.get(address).raise_for_status().text, METRIC_NAMES):
                    labels = frozenset({**sample.labels, "job": job}.items())
                    self.series[sample.name][labels].append((now, sample.value))
            except (httpx.HTTPError, ValueError):
                up = 0.0
            self.series["up"][frozenset({("job", job)})].append((now, up))

    def times(self, job: str) -> list[float]:
        """When the job was scraped: Unix times in seconds."""
        return [scrape_time for scrape_time, _ in self.series["up"].get(frozenset({("job", job)}), [])]


@contextmanager
def record_metrics(
    triton: str | None = None,
    *,
    openai: str | None = None,
    engine: str | None = None,
    vllm: str | None = None,
    interval: float = 0.5,
) -> Iterator[MetricsHistory]:
    """Scrape these /metrics addresses before the block, every `interval` seconds while it runs, and at its end.

    `openai` is the OpenAI frontend of Triton, `engine` the engine's own server. Raises HistoryError without an address.
    """
    addresses = {"triton": triton, "openai": openai, "engine": engine, "vllm": vllm}
    history = MetricsHistory({job: address for job, address in addresses.items() if address})
    if not history.addresses:
        raise HistoryError(
            "No address was given. Give the address of a server's metrics, such as triton.metrics."
        )
    first_address = next(iter(history.addresses.values()))
    stop = threading.Event()

    def scrape_until_stopped() -> None:
        with http_client(first_address, timeout=2) as http:
            while not stop.wait(interval):
                history.scrape(http)
            history.scrape(http)

    with http_client(first_address, timeout=2) as http:
        history.scrape(http)  # the counters' values before the block
    thread = threading.Thread(target=scrape_until_stopped, name="scrape", daemon=True)
    thread.start()
    try:
        yield history
    finally:
        stop.set()
        thread.join(timeout=2 * len(history.addresses) + 2)
