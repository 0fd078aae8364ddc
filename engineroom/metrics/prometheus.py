"""vLLM's own view of itself: the Prometheus text at /metrics, read once or watched.

Names are vLLM's, prefix `vllm:` left out: num_requests_running, num_requests_waiting, kv_cache_usage_perc,
generation_tokens_total, iteration_tokens_total_sum … (vllm/v1/metrics/loggers.py).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from engineroom.kit.process import Server


class Metrics(dict[str, float]):
    """Values by sample name, summed over labels; ``time`` is when they were read (time.perf_counter).

    Counters only grow: take differences, ``after - before``, which has the seconds between as ``time``.
    """

    time: float

    def __sub__(self, before: Metrics) -> Metrics:
        change = Metrics({name: value - before.get(name, 0.0) for name, value in self.items()})
        change.time = self.time - before.time
        return change

    def __missing__(self, name: str) -> float:
        near = [known for known in self if any(part in known for part in name.split("_") if len(part) > 3)]
        raise KeyError(f"vLLM has no metric {name!r}. Near: {', '.join(sorted(near)[:8]) or 'none'}.")


def parse(text: str) -> Metrics:
    """Metrics from Prometheus' text format; histograms keep their _sum and _count, not their buckets."""
    values: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("vllm:") and not sample.name.endswith(("_bucket", "_created", "_info")):
                values[sample.name.removeprefix("vllm:")] += sample.value
    metrics = Metrics(values)
    metrics.time = time.perf_counter()
    return metrics


def scrape(server: Server) -> Metrics:
    """Read /metrics once."""
    return parse(httpx.get(f"{server.url}/metrics", timeout=10, trust_env=False).raise_for_status().text)


class Watch:
    """Reads /metrics every ``interval`` seconds in the background while the with-block runs: ``samples``."""

    def __init__(self, server: Server, interval: float = 0.1) -> None:
        self.server, self.interval = server, interval
        self.samples: list[Metrics] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        with httpx.Client(base_url=self.server.url, timeout=10, trust_env=False) as http:
            while not self._done.wait(self.interval):
                self.samples.append(parse(http.get("/metrics").text))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=15)
        self.samples.append(scrape(self.server))
