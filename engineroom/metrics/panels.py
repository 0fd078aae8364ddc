"""The panels of the dashboard: what each one shows, from which server, and how to read it.

The metric names are those of the servers (Triton: docs/user_guide/metrics.md; vLLM: vllm/v1/metrics/loggers.py; this
engine: engineroom/openai/metrics.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from engineroom.metrics.promql import Expression, Max, Quantile, Rate, Ratio, Sum

# the jobs of deploy/monitoring/prometheus.yml: Triton, the OpenAI API in front of it, the engine's own server, vLLM
PREFIX = {"openai": "engineroom:", "engine": "engineroom:", "vllm": "vllm:"}
JOBS = ("triton", *PREFIX)
UNITS = {  # Grafana's name of the unit, and the label of the axis
    "reqps": "requests per second",
    "s": "seconds",
    "suffix: tok/s": "tokens per second",
    "percentunit": "share, 1 is all",
    "short": "requests",
    "bool_on_off": "1 is up",
}


@dataclass(frozen=True)
class Query:
    """One line, or one for each value of a label; `legend` in Grafana's format."""

    job: str
    expression: Expression
    legend: str


@dataclass(frozen=True)
class Panel:
    """One diagram; `description` says what to learn from it."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]

    @property
    def jobs(self) -> list[str]:
        """The servers that publish what the panel shows."""
        return [job for job in JOBS if job in {query.job for query in self.queries}]


def for_jobs(
    make_expression: Callable[[str], Expression], jobs: str = "openai engine vllm", suffix: str = ""
) -> list[Query]:
    """The same expression for each server with vLLM's metric names; `make_expression` takes the server's prefix."""
    return [Query(job, make_expression(PREFIX[job]), job + suffix) for job in jobs.split()]


def quantiles(histogram: str, jobs: str = "openai engine vllm") -> tuple[Query, ...]:
    """The median and the 95th percentile of a histogram."""
    p50 = for_jobs(lambda prefix: Quantile(0.5, prefix + histogram), jobs, " p50")
    p95 = for_jobs(lambda prefix: Quantile(0.95, prefix + histogram), jobs, " p95")
    return (*p50, *p95)


def backend_gauge(metric: str, kind: str) -> Sum:
    """A gauge of NVIDIA's backend."""
    label = {"request": "request_type", "kv_cache_block": "kv_cache_block_type"}[metric]
    return Sum(f"nv_trt_llm_{metric}_metrics", where={label: kind})


def mean_per_request(metric: str) -> tuple[Query, ...]:
    """The mean, in seconds, of a duration that Triton counts in microseconds, for each model of the repository."""
    expression = Ratio(Rate(metric, "model"), Rate("nv_inference_request_success", "model"), 1e6)
    return (Query("triton", expression, "{{model}}"),)


def triton(expression: Expression) -> Query:
    return Query("triton", expression, "triton")


ENGINE = {"model": "tensorrt_llm"}  # every request passes this model once, whichever model the client called
FAILED = {"finished_reason": "abort|error"}
ROWS: dict[str, tuple[Panel, ...]] = {
    "Traffic and errors": (
        Panel("Up", "bool_on_off", "Whether the server answered the last scrape.",
              tuple(Query(job, Sum("up"), job) for job in JOBS)),
        Panel("Requests ended", "reqps", "Requests that were answered, per second.",
              (triton(Rate("nv_inference_request_success", where=ENGINE)),
               *for_jobs(lambda prefix: Rate(f"{prefix}request_success_total")))),
        Panel("Failed or cancelled", "reqps", "Investigate anything above zero; a client that disconnects counts too.",
              (triton(Rate("nv_inference_request_failure", where=ENGINE)),
               *for_jobs(lambda prefix: Rate(f"{prefix}request_success_total", where=FAILED)))),
    ),
    "Latency": (
        Panel("Time to first token", "s", "How long a user waits for the first word.",
              quantiles("time_to_first_token_seconds")),
        Panel("Inter-token latency", "s", "How steadily the text arrives.", quantiles("inter_token_latency_seconds")),
        Panel("End to end", "s", "From arrival to the last token; it grows with the length of the answer.",
              quantiles("e2e_request_latency_seconds")),
    ),
    "Throughput": (
        Panel("Generated tokens", "suffix: tok/s", "Output tokens of all users together.",
              tuple(for_jobs(lambda prefix: Rate(f"{prefix}generation_tokens_total")))),
        Panel("Prompt tokens", "suffix: tok/s", "Prompt tokens of all users together.",
              tuple(for_jobs(lambda prefix: Rate(f"{prefix}prompt_tokens_total")))),
        Panel("Prefix cache hits", "percentunit", "Share of the prompt tokens that were found in the KV cache.",
              tuple(for_jobs(lambda prefix: Ratio(Rate(f"{prefix}prefix_cache_hits_total"),
                                                  Rate(f"{prefix}prefix_cache_queries_total")), "engine vllm"))),
    ),
    "Load": (
        Panel("Running", "short", "The batch: requests that get a token in each step.",
              (triton(backend_gauge("request", "scheduled")),
               *for_jobs(lambda prefix: Sum(f"{prefix}num_requests_running"), "engine vllm"))),
        Panel("Waiting", "short", "Requests in the queue; a line that keeps rising means overload.",
              (triton(backend_gauge("request", "waiting")),
               *for_jobs(lambda prefix: Sum(f"{prefix}num_requests_waiting"), "engine vllm"))),
        Panel("KV cache in use", "percentunit", "Near 1, memory limits the batch, not compute.",
              (triton(Ratio(backend_gauge("kv_cache_block", "used"), backend_gauge("kv_cache_block", "max"))),
               *for_jobs(lambda prefix: Max(f"{prefix}kv_cache_usage_perc"), "engine vllm"))),
    ),
    "Where requests wait": (
        Panel("Queue of the engine", "s", "From arrival to the first step.",
              quantiles("request_queue_time_seconds", "engine vllm")),
        Panel("Queue of Triton, mean", "s", "Until the model's process takes the request.",
              mean_per_request("nv_inference_queue_duration_us")),
        Panel("Time in Triton, mean", "s",
              "For a model that streams (tensorrt_llm), only until its process has accepted the request.",
              mean_per_request("nv_inference_request_duration_us")),
    ),
}  # fmt: skip
PANELS = tuple(chain(*ROWS.values()))
