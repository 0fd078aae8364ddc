"""Lesson 02: load tests. What a user feels (TTFT, ITL, TPOT, end to end) and what a server bears (goodput)."""

from labs.load.bench import vllm_bench
from labs.load.drive import closed_loop, open_loop, random_prompts
from labs.load.stats import (
    SLO,
    duration,
    e2e,
    goodput,
    itl,
    meets,
    percentile,
    summary,
    throughput,
    tpot,
    ttft,
)
from labs.load.sweep import Point, capacity, sweep

__all__ = [
    "SLO", "Point", "capacity", "closed_loop", "duration", "e2e", "goodput", "itl", "meets", "open_loop", "percentile",
    "random_prompts", "summary", "sweep", "throughput", "tpot", "ttft", "vllm_bench",
]  # fmt: skip
