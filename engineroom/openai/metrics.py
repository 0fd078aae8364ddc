"""What the server tells Prometheus. Names, labels and meaning are vLLM's (vllm/v1/metrics/loggers.py), prefix ours."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.openai.text import Piece

PREFIX = "engineroom:"
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
LONG = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 60, 120, 240, 480)
REFUSED = (RequestError, QueueFull, EngineStopped)


class Load(Protocol):
    """Requests that run and that wait; the share, 0 to 1, of the KV cache's blocks in use."""

    running: int
    waiting: int
    kv_cache_usage: float


class LoadGauges(Collector):
    """Asks the backend when Prometheus asks us."""

    def __init__(self, load: Callable[[], Load], model: str) -> None:
        self.load, self.model = load, model

    def collect(self) -> Iterable[Metric]:
        now = self.load()
        for name, text, value in (
            ("num_requests_running", "Requests that run", now.running),
            ("num_requests_waiting", "Requests that wait", now.waiting),
            ("kv_cache_usage_perc", "Share of the KV cache's blocks in use, 1 is all", now.kv_cache_usage),
        ):
            gauge = GaugeMetricFamily(PREFIX + name, text, labels=["model_name"])
            gauge.add_metric([self.model], value)
            yield gauge


class Metrics:
    """Times are in seconds, of this process; counts are of tokens or requests."""

    def __init__(self, load: Callable[[], Load], model: str) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(LoadGauges(load, model))

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(PREFIX + name, text, ["model_name"], buckets=buckets, registry=self.registry)
            return made.labels(model)

        def counter(name: str, text: str) -> Counter:
            return Counter(PREFIX + name, text, ["model_name"], registry=self.registry).labels(model)

        self.ttft = histogram("time_to_first_token_seconds", "From arrival to the first token", SHORT)
        self.itl = histogram("inter_token_latency_seconds", "From one token to the next", SHORT)
        self.queue = histogram("request_queue_time_seconds", "From arrival to the first step", LONG)
        self.e2e = histogram("e2e_request_latency_seconds", "From arrival to the last token", LONG)
        self.prompt = counter("prompt_tokens", "Prompt tokens of requests that got a token")
        self.generation = counter("generation_tokens", "Tokens generated")
        self.queries = counter("prefix_cache_queries", "Prompt tokens looked up in the KV cache")
        self.hits = counter("prefix_cache_hits", "Prompt tokens found there")
        self.ended = Counter(
            f"{PREFIX}request_success", "Ends: stop, length, abort (the client left), error",
            ["model_name", "finished_reason"], registry=self.registry,
        )  # fmt: skip
        self.model = model

    def text(self) -> bytes:
        return generate_latest(self.registry)

    async def watch(self, parts: AsyncGenerator[Piece], prompt_tokens: int) -> AsyncGenerator[Piece]:
        """The same pieces, measured. A request that was refused counts nowhere; one that had a token ends once."""
        began, last, ending = time.perf_counter(), 0.0, "abort"
        try:
            async with aclosing(parts):
                async for piece in parts:
                    now = time.perf_counter()
                    if last:
                        self.itl.observe(now - last)
                    else:
                        self._first(piece, now - began, prompt_tokens)
                    self.generation.inc()
                    last = now
                    if piece.finish_reason:
                        ending = piece.finish_reason
                        self.e2e.observe(now - began)
                    yield piece
        except Exception as error:
            ending = "" if isinstance(error, REFUSED) and not last else "error"
            raise
        finally:
            if ending:
                self.ended.labels(self.model, ending).inc()

    def _first(self, piece: Piece, seconds: float, prompt_tokens: int) -> None:
        first = piece.outputs[0]
        self.ttft.observe(seconds)
        self.prompt.inc(prompt_tokens)
        self.queries.inc(prompt_tokens)
        self.hits.inc(first.cached_tokens)
        if first.queue_seconds is not None:
            self.queue.observe(first.queue_seconds)
