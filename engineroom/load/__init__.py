"""Lesson 02: load tests. What a user feels (TTFT, ITL, TPOT, end to end) and what a server bears (goodput)."""

from engineroom.vllm.bench import vllm_bench
from engineroom.load.drive import closed_loop, open_loop, random_prompts
from engineroom.load.stats import (
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
from engineroom.load.sweep import Point, capacity, sweep

__all__ = [
    "SLO", "Point", "capacity", "closed_loop", "duration", "e2e", "goodput", "itl", "meets", "open_loop", "percentile",
    "random_prompts", "summary", "sweep", "throughput", "tpot", "ttft", "vllm_bench",
]  # fmt: skip
