"""The metrics of the server, for Prometheus.

Names, labels and meaning are those of vLLM (vllm/v1/metrics/loggers.py), with a prefix of our own.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from engineroom.engine.runtime.async_executor import EngineStats, EngineStopped, QueueFull
from engineroom.engine.runtime.request import RequestError
from engineroom.openai.text import TextDelta

PREFIX = "engineroom:"
TOKEN_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 60, 120, 240, 480,
)  # fmt: skip
REFUSALS = (RequestError, QueueFull, EngineStopped)


class EngineStatsCollector(Collector):
    """Metrics that ask the backend for its stats each time Prometheus asks; those that it does not know are NaN."""

    def __init__(self, stats: Callable[[], EngineStats], model: str) -> None:
        self.stats, self.model = stats, model

    def collect(self) -> Iterable[Metric]:
        stats = self.stats()
        for name, documentation, value in (
            ("num_requests_running", "Requests that run", stats.num_running_requests),
            ("num_requests_waiting", "Requests that wait", stats.num_waiting_requests),
            ("kv_cache_usage_perc", "Share of the KV cache's blocks in use, 1 is all", stats.kv_cache_usage),
        ):
            gauge = GaugeMetricFamily(PREFIX + name, documentation, labels=["model_name"])
            gauge.add_metric([self.model], value)
            yield gauge
        preemptions = CounterMetricFamily(
            f"{PREFIX}num_preemptions", "Requests that lost their blocks", labels=["model_name"]
        )
        preemptions.add_metric([self.model], stats.num_preemptions)
        yield preemptions
        if not math.isnan(stats.num_blocks):
            yield self._cache_config(stats)

    def _cache_config(self, stats: EngineStats) -> Metric:
        """The size of the KV cache; as in vLLM, it stands in the labels of a gauge that is always 1."""
        config = {"num_gpu_blocks": f"{stats.num_blocks:.0f}", "block_size": f"{stats.tokens_per_block:.0f}"}
        info = GaugeMetricFamily(
            f"{PREFIX}cache_config_info", "Size of the KV cache", labels=["model_name", *config]
        )
        info.add_metric([self.model, *config.values()], 1)
        return info


class ServerMetrics:
    """Prometheus metrics. Histograms are in seconds; all but inter-token latency and queue time begin at `watch`."""

    def __init__(self, stats: Callable[[], EngineStats], model: str) -> None:
        self.model = model
        self.registry = CollectorRegistry()
        self.registry.register(EngineStatsCollector(stats, model))
        self.ttft = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token", TOKEN_BUCKETS
        )
        self.itl = self._histogram("inter_token_latency_seconds", "From one token to the next", TOKEN_BUCKETS)
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "From arrival to the first step", REQUEST_BUCKETS
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the last token", REQUEST_BUCKETS
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of requests that got a token")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        self.cache_queries = self._counter("prefix_cache_queries", "Prompt tokens looked up in the KV cache")
        self.cache_hits = self._counter("prefix_cache_hits", "Prompt tokens found there")
        self.finished_requests = Counter(
            f"{PREFIX}request_success",
            "Ends: stop, length, abort (the client left), error",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    async def watch(
        self, deltas: AsyncGenerator[TextDelta], num_prompt_tokens: int
    ) -> AsyncGenerator[TextDelta]:
        """Pass the deltas on, and record their metrics.

        A refused request is not counted. Every other request is counted once, when it ends.
        """
        arrival_time, last_token_time = time.perf_counter(), None
        finished_reason = "abort"
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    now = time.perf_counter()
                    if last_token_time is None:
                        self._observe_first(delta, now - arrival_time, num_prompt_tokens)
                    else:
                        self.itl.observe(now - last_token_time)
                    self.generation_tokens.inc()
                    last_token_time = now
                    if delta.finish_reason:
                        finished_reason = delta.finish_reason
                        self.e2e_latency.observe(now - arrival_time)
                    yield delta
        except Exception as error:
            was_refused = isinstance(error, REFUSALS) and last_token_time is None
            finished_reason = None if was_refused else "error"
            raise
        finally:
            if finished_reason:
                self.finished_requests.labels(self.model, finished_reason).inc()

    def _observe_first(self, delta: TextDelta, seconds: float, num_prompt_tokens: int) -> None:
        output = delta.outputs[0]
        self.ttft.observe(seconds)
        self.prompt_tokens.inc(num_prompt_tokens)
        self.cache_queries.inc(num_prompt_tokens)
        self.cache_hits.inc(output.num_cached_tokens)
        if output.queue_seconds is not None:
            self.queue_time.observe(output.queue_seconds)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            PREFIX + name, documentation, ["model_name"], buckets=buckets, registry=self.registry
        )
        return histogram.labels(self.model)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(PREFIX + name, documentation, ["model_name"], registry=self.registry).labels(
            self.model
        )
