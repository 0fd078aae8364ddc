"""Load tests: what a user feels (TTFT, ITL, TPOT, end-to-end latency) and what a server delivers (goodput)."""

from engineroom.load.client import fire, openai_client, session, stream
from engineroom.load.drive import closed_loop, open_loop, random_prompts
from engineroom.load.errors import LoadError
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
    tpots,
    ttft,
)
from engineroom.load.sweep import Point, capacity, sweep
from engineroom.load.trace import Trace

__all__ = [
    "SLO", "LoadError", "Point", "Trace", "capacity", "closed_loop", "duration", "e2e", "fire", "goodput", "itl",
    "meets", "open_loop", "openai_client", "percentile", "random_prompts", "session", "stream", "summary", "sweep",
    "throughput", "tpot", "tpots", "ttft",
]  # fmt: skip
