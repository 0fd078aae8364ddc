"""The panels of the dashboard: what each asks, of which server, and what it tells.

Metric names are those that the servers tell (Triton's docs/user_guide/metrics.md, vllm/v1/metrics/loggers.py,
engineroom/openai/metrics.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from engineroom.metrics.promql import Expression, Peak, Quantile, Rate, Ratio, Value

# the jobs of deploy/monitoring/prometheus.yml: Triton, OpenAI's API before it, the engine's own server, vLLM
PREFIX = {"openai": "engineroom:", "engine": "engineroom:", "vllm": "vllm:"}
JOBS = ("triton", *PREFIX)
UNITS = {  # Grafana's name of the unit, and the axis
    "reqps": "requests per second",
    "s": "seconds",
    "suffix: tok/s": "tokens per second",
    "percentunit": "share, 1 is all",
    "short": "requests",
    "bool_on_off": "1 is up",
}


@dataclass(frozen=True)
class Series:
    """One line, or one for each value of a label; `legend` as Grafana has it."""

    job: str
    asks: Expression
    legend: str


@dataclass(frozen=True)
class Panel:
    """`tells`: what to learn from it, in a sentence."""

    title: str
    unit: str
    tells: str
    series: tuple[Series, ...]


def alike(
    make: Callable[[str], Expression], jobs: str = "openai engine vllm", note: str = ""
) -> list[Series]:
    """The same question to the servers that use vLLM's names."""
    return [Series(job, make(PREFIX[job]), job + note) for job in jobs.split()]


def quantiles(histogram: str, jobs: str = "openai engine vllm") -> tuple[Series, ...]:
    both = [alike(lambda p, q=q: Quantile(q, p + histogram), jobs, f" p{q * 100:g}") for q in (0.5, 0.95)]
    return tuple(chain(*both))


def in_engine(metric: str, kind: str) -> Value:
    """A gauge of NVIDIA's backend."""
    label = {"request": "request_type", "kv_cache_block": "kv_cache_block_type"}[metric]
    return Value(f"nv_trt_llm_{metric}_metrics", where={label: kind})


def per_request(metric: str) -> tuple[Series, ...]:
    """Triton's time, told in microseconds, for each model of the repository."""
    asks = Ratio(Rate(metric, "model"), Rate("nv_inference_request_success", "model"), 1e6)
    return (Series("triton", asks, "{{model}}"),)


def triton(asks: Expression) -> Series:
    return Series("triton", asks, "triton")


ENGINE = {"model": "tensorrt_llm"}  # each request is counted once there, whichever way it came
FAILED = {"finished_reason": "abort|error"}
ROWS: dict[str, tuple[Panel, ...]] = {
    "Traffic and errors": (
        Panel("Up", "bool_on_off", "Whether the last scrape was answered.",
              tuple(Series(job, Value("up"), job) for job in JOBS)),
        Panel("Requests ended", "reqps", "The load that was served.",
              (triton(Rate("nv_inference_request_success", where=ENGINE)),
               *alike(lambda p: Rate(f"{p}request_success_total")))),
        Panel("Failed or cancelled", "reqps", "Anything above zero needs a look; a client that left counts too.",
              (triton(Rate("nv_inference_request_failure", where=ENGINE)),
               *alike(lambda p: Rate(f"{p}request_success_total", where=FAILED)))),
    ),
    "Latency": (
        Panel("Time to first token", "s", "What a user waits before anything is seen.",
              quantiles("time_to_first_token_seconds")),
        Panel("Inter-token latency", "s", "How smooth the text comes.", quantiles("inter_token_latency_seconds")),
        Panel("End to end", "s", "From arrival to the last token; it grows with the length of the answer.",
              quantiles("e2e_request_latency_seconds")),
    ),
    "Throughput": (
        Panel("Generated tokens", "suffix: tok/s", "The work done for all users together.",
              tuple(alike(lambda p: Rate(f"{p}generation_tokens_total")))),
        Panel("Prompt tokens", "suffix: tok/s", "The work that long prompts make.",
              tuple(alike(lambda p: Rate(f"{p}prompt_tokens_total")))),
        Panel("Prefix cache hits", "percentunit", "Prompt tokens that were found in the KV cache.",
              tuple(alike(lambda p: Ratio(Rate(f"{p}prefix_cache_hits_total"),
                                          Rate(f"{p}prefix_cache_queries_total")), "engine vllm"))),
    ),
    "Load": (
        Panel("Running", "short", "The batch: requests that get a token at each step.",
              (triton(in_engine("request", "scheduled")),
               *alike(lambda p: Value(f"{p}num_requests_running"), "engine vllm"))),
        Panel("Waiting", "short", "Requests without a place; a line that rises is an overload.",
              (triton(in_engine("request", "waiting")),
               *alike(lambda p: Value(f"{p}num_requests_waiting"), "engine vllm"))),
        Panel("KV cache in use", "percentunit", "Near 1, memory and not compute bounds the batch.",
              (triton(Ratio(in_engine("kv_cache_block", "used"), in_engine("kv_cache_block", "max"))),
               *alike(lambda p: Peak(f"{p}kv_cache_usage_perc"), "engine vllm"))),
    ),
    "Where requests wait": (
        Panel("Queue of the engine", "s", "From arrival to the first step.",
              quantiles("request_queue_time_seconds", "engine vllm")),
        Panel("Queue of Triton, mean", "s", "Until a model's program takes the request.",
              per_request("nv_inference_queue_duration_us")),
        Panel("Time in Triton, mean", "s",
              "Of a model that streams (tensorrt_llm) only until its program has taken the request over.",
              per_request("nv_inference_request_duration_us")),
    ),
}  # fmt: skip
PANELS = tuple(chain(*ROWS.values()))
