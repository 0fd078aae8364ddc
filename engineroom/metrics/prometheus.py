"""The reader of Prometheus' text format, for vLLM, Triton and this engine's servers: one page, or many over time."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from engineroom.kit.network import http_client
from engineroom.kit.process import Server

VLLM = "vllm:"  # the prefix of vLLM's metrics (vllm/v1/metrics/loggers.py)
NOT_ADDED = ("_bucket", "_created", "_info")  # suffixes of samples whose sum over labels means nothing


class Metrics(dict[str, float]):
    """Values by metric name, summed over labels; ``time`` is when they were read (time.perf_counter, seconds).

    Counters only grow, so take differences: ``after - before`` has the seconds between the two as its ``time``.
    """

    def __init__(self, values: Mapping[str, float], time: float) -> None:
        super().__init__(values)
        self.time = time

    def __sub__(self, before: Metrics) -> Metrics:
        changes = {name: value - before.get(name, 0.0) for name, value in self.items()}
        return Metrics(changes, self.time - before.time)

    def __missing__(self, name: str) -> float:
        parts = [part for part in name.split("_") if len(part) > 3]
        near = sorted(known for known in self if any(part in known for part in parts))
        raise KeyError(f"There is no metric {name!r}. Near: {', '.join(near[:8]) or 'none'}.")


def parse(text: str, names: Collection[str] | None = None) -> list[Sample]:
    """All samples of a page, named as the server writes them; with ``names``, only those of these metrics.

    Comments are skipped: after a TYPE line, prometheus_client would add `_total` to a counter's name. Raises
    ValueError for text in another format.
    """
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    if names is not None:
        lines = [line for line in lines if re.split(r"[{ ]", line, maxsplit=1)[0] in names]
    families = text_string_to_metric_families("\n".join(lines) + "\n")
    return [sample for family in families for sample in family.samples]


def total(samples: Iterable[Sample], prefix: str = "") -> Metrics:
    """The samples whose name starts with ``prefix``, which is left out, summed over their labels.

    A histogram keeps its `_sum` and `_count`, not its buckets. ``time`` is now.
    """
    values: defaultdict[str, float] = defaultdict(float)
    for sample in samples:
        if sample.name.startswith(prefix) and not sample.name.endswith(NOT_ADDED):
            values[sample.name.removeprefix(prefix)] += sample.value
    return Metrics(values, time.perf_counter())


def fetch(server: Server | str) -> list[Sample]:
    """Read a server's /metrics, or the page at another address. Raises httpx.HTTPError and ValueError."""
    with _client(server) as http:
        return _fetch(http, server)


def scrape(server: Server | str, prefix: str = VLLM) -> Metrics:
    """`fetch`, summed over labels as in `total`: ``scrape(server)["num_requests_running"]``."""
    return total(fetch(server), prefix)


class Watch:
    """Scrapes every ``interval`` seconds in the background while the with-block runs, and once at its end.

    The results are in ``samples``, oldest first.
    """

    def __init__(self, server: Server | str, interval: float = 0.1, prefix: str = VLLM) -> None:
        self.server, self.interval, self.prefix = server, interval, prefix
        self.samples: list[Metrics] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        with _client(
            self.server
        ) as http:  # one client for all scrapes: creating one takes tens of milliseconds
            while not self._stop.wait(self.interval):
                self.samples.append(total(_fetch(http, self.server), self.prefix))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
        self.samples.append(scrape(self.server, self.prefix))


def _client(server: Server | str) -> httpx.Client:
    return http_client(server if isinstance(server, str) else server.url, timeout=10)


def _fetch(http: httpx.Client, server: Server | str) -> list[Sample]:
    address = server if isinstance(server, str) else f"{server.url}/metrics"
    return parse(http.get(address).raise_for_status().text)
