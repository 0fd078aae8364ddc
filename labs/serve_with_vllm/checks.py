"""The exercises of lesson 01."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, isclose

from engineroom.metrics.prometheus import Metrics
from labs.kit.check import Mistake, exercise, require, require_function, require_number


@exercise("01.streaming", version=1, title="Note when each token of a stream arrives", minutes=6)
def streaming(times: Sequence[float]) -> None:
    require(
        isinstance(times, list) and all(isinstance(seconds, float) for seconds in times),
        "I expected a list of seconds (floats), got {type}. Append one number for each piece of text.",
    )
    require(times, "The list is empty: no piece of text was noted. Is the append inside the loop?")
    require(
        len(times) > 3,
        f"Only {len(times)} times: this answer has more tokens. Did you set `stream=True`, and append in the loop?",
    )
    require(
        0 <= times[0] < 300,
        "The first number is a clock reading, not a waiting time: subtract the moment of sending from each.",
        "Take `sent = time.perf_counter()` before the request, and append `time.perf_counter() - sent`.",
    )
    require(
        all(later >= earlier for earlier, later in pairwise(times)),
        "The numbers go down: they look like gaps between tokens. Note the seconds since sending for each token.",
    )
    require(
        times[-1] - times[0] > 1e-4,
        "All tokens arrive at once: you took the times after the stream had ended. Note each one inside the loop.",
    )


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


@exercise("01.counters", version=1, title="Turn a counter into a rate", minutes=5)
def counters(tokens_per_second: Callable[[Metrics, Metrics], float]) -> None:
    require_function(tokens_per_second, "tokens_per_second")
    before = example_metrics(1000, 10, time=50.0)
    after = example_metrics(1300, 40, time=52.0, prompt_tokens=600.0)
    output = tokens_per_second(before, after)
    mistakes = {
        1300.0: "That is the counter itself. It counts since the server started: take the difference.",
        650.0: "You divided the whole counter by the seconds. Take the difference of the counter first.",
        300.0: "That is how many tokens were generated in between. For a rate per second, divide by the seconds.",
        -150.0: "The sign is reversed: subtract the earlier value from the later one.",
        400.0: "You counted prompt tokens too. `generation_tokens_total` counts only the generated ones.",
        25.0: "You divided by the clock reading. The seconds in between are `after.time - before.time`.",
        250.0: "Those are prompt tokens per second. `generation_tokens_total` counts the generated ones.",
    }
    require_number(output, mistakes)
    require(
        isclose(output, 150.0, rel_tol=1e-3),
        f"300 tokens in 2 seconds gave {output:.4g}. Divide the difference of the counter by the difference of the "
        "times.",
        "`change = after - before`, then `change['generation_tokens_total'] / change.time`",
    )


@exercise("01.batching", version=1, title="Prove batching from the server's own counters", minutes=6)
def batching(mean_batch: Callable[[Metrics], float], change: Metrics) -> None:
    require_function(mean_batch, "mean_batch")
    output = mean_batch(example_metrics(800, 100, time=2.0))
    mistakes = {
        400.0: "That is tokens per second. How many tokens did one engine step generate, on average?",
        0.125: "That is the inverse: steps per token. Divide tokens by steps.",
        9.0: "`iteration_tokens_total_sum` counts prompt tokens as well; take `generation_tokens_total`.",
        800.0: "That is all tokens. Divide by the number of engine steps that generated them.",
    }
    require_number(output, mistakes)
    require(
        isclose(output, 8.0, rel_tol=1e-3),
        f"800 tokens in 100 engine steps gave {output:.4g}. Each step generates one token for each running request.",
        "`change['generation_tokens_total'] / change['iteration_tokens_total_count']`",
    )
    measured_batch = mean_batch(change)
    require(
        measured_batch > 2,
        f"The function is right, but your run shows {measured_batch:.2g} requests a step: nothing ran together. Fire "
        "all prompts at once, between the two scrapes.",
    )


@exercise("01.waves", version=1, title="Predict what a limit on running requests does", minutes=4)
def waves(
    waves: object, longest_queue: object, requests: int, max_num_seqs: int, measured_queue: float
) -> None:
    predicted_waves = _whole_number("waves", waves)
    predicted_queue = _whole_number("longest_queue", longest_queue)
    require(
        predicted_waves != max_num_seqs or requests == max_num_seqs**2,
        "That is how many requests run together. How many rounds of that size do all requests need?",
    )
    require(
        predicted_waves == ceil(requests / max_num_seqs),
        f"{predicted_waves} waves is not it: {requests} requests of equal length run, {max_num_seqs} at a time.",
        f"`{requests} / {max_num_seqs}`, rounded up.",
    )
    require(
        predicted_queue != requests,
        "All of them wait for a moment, but the first ones start at once. Which ones still wait then?",
    )
    require(
        predicted_queue == requests - max_num_seqs,
        f"A queue of {predicted_queue} is not it. {requests} arrive at once, {max_num_seqs} start, and the rest waits.",
    )
    require(
        measured_queue <= predicted_queue,
        f"Your arithmetic is right, but vLLM reported {measured_queue:.0f} waiting requests. Start the server again "
        "and fire again.",
    )


def _whole_number(name: str, value: object) -> int:
    """Return ``value``. Raises Mistake when it is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mistake(f"`{name}` must be a whole number, not {value!r}.")
    return value
