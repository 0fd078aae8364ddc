"""Right and wrong formulas of lesson 01's exercises on counters, and readings on which they differ."""

from __future__ import annotations

from math import ceil

from engineroom.metrics.prometheus import Metrics
from labs.kit.formula import Mistakes


def example_metrics(
    generation_tokens: float, steps: float, time: float, prompt_tokens: float = 100.0
) -> Metrics:
    """Values as vLLM reports them after this many engine steps; `time` in seconds."""
    values = {
        "generation_tokens_total": generation_tokens,
        "prompt_tokens_total": prompt_tokens,
        "iteration_tokens_total_count": steps,
        "iteration_tokens_total_sum": generation_tokens + prompt_tokens,
    }
    return Metrics(values, time)


READINGS = {
    "313 generated tokens in 2.5 s": (
        example_metrics(1000, 10, time=50.0),
        example_metrics(1313, 40, time=52.5, prompt_tokens=607.0),
    ),
    "7 generated tokens in 2.4 s": (
        example_metrics(90, 3, time=7.0, prompt_tokens=40.0),
        example_metrics(97, 8, time=9.4, prompt_tokens=171.0),
    ),
    "1,931 generated tokens in 0.9 s": (
        example_metrics(2500, 30, time=110.0, prompt_tokens=1000.0),
        example_metrics(4431, 151, time=110.9, prompt_tokens=1256.0),
    ),
}
STEPS = {
    "800 tokens in 100 engine steps": (example_metrics(800, 100, time=2.0),),
    "37 tokens in 16 engine steps": (example_metrics(37, 16, time=0.7, prompt_tokens=11.0),),
    "1,250 tokens in 91 engine steps": (example_metrics(1250, 91, time=3.3, prompt_tokens=700.0),),
}
GENERATED, PROMPT = "generation_tokens_total", "prompt_tokens_total"
BOTH, STEP_COUNT = "iteration_tokens_total_sum", "iteration_tokens_total_count"


def rate(before: Metrics, after: Metrics, name: str = GENERATED) -> float:
    """Change of a counter per second."""
    return (after[name] - before[name]) / (after.time - before.time)


CLOCK = "You divided by the clock reading. The seconds in between are `after.time - before.time`."
GENERATED_ONLY = "You counted prompt tokens too. `generation_tokens_total` counts only the generated ones."
RATE_MISTAKES: Mistakes = [
    (
        lambda _, after: after[GENERATED],
        "That is the counter itself. It counts since the server started: take the difference.",
    ),
    (
        lambda before, after: after[GENERATED] / (after - before).time,
        "You divided the whole counter by the seconds. Take the difference of the counter first.",
    ),
    (
        lambda before, after: (after - before)[GENERATED],
        "That is how many tokens were generated in between. For a rate per second, divide by the seconds.",
    ),
    (
        lambda before, after: -rate(before, after),
        "The sign is reversed: subtract the earlier value from the later one.",
    ),
    (lambda before, after: rate(before, after, BOTH), GENERATED_ONLY),
    (lambda before, after: rate(before, after) + rate(before, after, PROMPT), GENERATED_ONLY),
    (lambda _, after: after[GENERATED] / after.time, CLOCK),
    (lambda before, after: (after - before)[GENERATED] / after.time, CLOCK),
    (
        lambda before, after: rate(before, after, PROMPT),
        "Those are prompt tokens per second. `generation_tokens_total` counts the generated ones.",
    ),
    (
        lambda before, after: rate(before, after, STEP_COUNT),
        "Those are engine steps per second. `generation_tokens_total` counts tokens.",
    ),
    (
        lambda before, after: (after - before)[GENERATED] / (after - before)[STEP_COUNT],
        "Those are tokens per engine step. Divide by the seconds in between.",
    ),
    (lambda before, after: 1 / rate(before, after), "That is the inverse: seconds per token."),
    (
        lambda before, after: rate(before, after) / 1000,
        "You divided by milliseconds: `.time` is in seconds already.",
    ),
    (
        lambda before, after: after[GENERATED] / after.time - before[GENERATED] / before.time,
        "You divided each reading by its clock. Take both differences first, then divide.",
    ),
]
BATCH_MISTAKES: Mistakes = [
    (
        lambda change: change[GENERATED] / change.time,
        "That is tokens per second. How many tokens did one engine step generate, on average?",
    ),
    (
        lambda change: change[STEP_COUNT] / change.time,
        "Those are engine steps per second. How many tokens did one step generate, on average?",
    ),
    (
        lambda change: change[STEP_COUNT] / change[GENERATED],
        "That is the inverse: steps per token. Divide tokens by steps.",
    ),
    (lambda change: change[BOTH] / change[STEP_COUNT], GENERATED_ONLY),
    (
        lambda change: change[PROMPT] / change[STEP_COUNT],
        "Those are prompt tokens per step; take `generation_tokens_total`.",
    ),
    (
        lambda change: change[GENERATED],
        "That is all tokens. Divide by the number of engine steps that generated them.",
    ),
    (
        lambda change: change[STEP_COUNT],
        "That is the number of engine steps. How many tokens did each generate?",
    ),
    (
        lambda change: change[GENERATED] / change[BOTH],
        "`iteration_tokens_total_sum` counts tokens. The number of steps is `iteration_tokens_total_count`.",
    ),
    (
        lambda change: ceil(change[GENERATED] / change[STEP_COUNT]),
        "It is rounded up. An average has a fraction.",
    ),
]
