"""Lesson 01: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

import time
from typing import Any

from labs.serve_with_vllm.checks import example_metrics

CHANGE = example_metrics(800, 100, time=2.0)

RIGHT: dict[str, tuple[Any, ...]] = {
    "01.streaming": ([0.05, 0.06, 0.08, 0.11, 0.13],),
    "01.counters": (lambda a, b: (b - a)["generation_tokens_total"] / (b - a).time,),
    "01.batching": (lambda c: c["generation_tokens_total"] / c["iteration_tokens_total_count"], CHANGE),
    "01.waves": (4, 12, 16, 4, 12),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("01.streaming", ("0.1",), "list of seconds"),
    ("01.streaming", ([],), "inside the loop"),
    ("01.streaming", ([0.3],), "stream=True"),
    ("01.streaming", ([time.time() + i for i in range(9)],), "clock reading"),
    ("01.streaming", ([0.5, 0.01, 0.02, 0.01, 0.02],), "gaps between tokens"),
    ("01.streaming", ([0.5, 0.5, 0.5, 0.5, 0.5],), "stream had ended"),
    ("01.counters", (150.0,), "Pass it uncalled"),
    ("01.counters", (lambda a, b: "fast",), "not a number"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"],), "take the difference"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"] / (b - a).time,), "the whole counter"),
    ("01.counters", (lambda a, b: (b - a)["generation_tokens_total"],), "divide by the seconds"),
    ("01.counters", (lambda a, b: (a - b)["generation_tokens_total"] / (b - a).time,), "The sign is reversed"),
    ("01.counters", (lambda a, b: (b - a)["iteration_tokens_total_sum"] / (b - a).time,), "prompt tokens too"),
    ("01.counters", (lambda a, b: b["generation_tokens_total"] / b.time,), "clock reading"),
    ("01.counters", (lambda a, b: (b - a)["prompt_tokens_total"] / (b - a).time,), "prompt tokens per second"),
    ("01.counters", (lambda a, b: 1.0,), "by the difference of the times"),
    ("01.batching", (8, CHANGE), "Pass it uncalled"),
    ("01.batching", (lambda c: [], CHANGE), "not a number"),
    ("01.batching", (lambda c: c["generation_tokens_total"] / c.time, CHANGE), "tokens per second"),
    ("01.batching", (lambda c: c["iteration_tokens_total_count"] / c["generation_tokens_total"], CHANGE), "inverse"),
    ("01.batching", (lambda c: c["iteration_tokens_total_sum"] / c["iteration_tokens_total_count"], CHANGE), "prompt"),
    ("01.batching", (lambda c: c["generation_tokens_total"], CHANGE), "all tokens"),
    ("01.batching", (lambda c: 3.0, CHANGE), "800 tokens in 100"),
    ("01.batching", (RIGHT["01.batching"][0], example_metrics(100, 100, time=1.0)), "nothing ran together"),
    ("01.waves", (4.0, 12, 16, 4, 12), "`waves` must be a whole number"),
    ("01.waves", (4, "12", 16, 4, 12), "`longest_queue` must be a whole number"),
    ("01.waves", (16, 12, 16, 4, 12), "16 waves is not it"),
    ("01.waves", (4, 8, 12, 4, 8), "run together"),
    ("01.waves", (4, 16, 16, 4, 12), "the first ones start at once"),
    ("01.waves", (4, 4, 16, 4, 12), "the rest waits"),
    ("01.waves", (4, 12, 16, 4, 14), "vLLM reported 14"),
]  # fmt: skip
