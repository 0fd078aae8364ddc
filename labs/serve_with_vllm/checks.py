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
        isinstance(times, list) and all(isinstance(one, float) for one in times),
        "I expected a list of seconds (floats), got {type}. Append one number for each piece of text.",
    )
    require(times, "The list is empty: no piece of text was noted. Is the append inside the loop?")
    require(
        len(times) > 3,
        f"Only {len(times)} times: this answer has more tokens. Did you set `stream=True`, and append in the loop?",
    )
    require(
        0 <= times[0] < 300,
        "The first number is no waiting time but a clock reading: subtract the moment of sending from each.",
        "Take `sent = time.perf_counter()` before the request, and append `time.perf_counter() - sent`.",
    )
    require(
        all(later >= earlier for earlier, later in pairwise(times)),
        "The numbers go down: those look like gaps between tokens. Here I want seconds since sending, for each token.",
    )
    require(
        times[-1] - times[0] > 1e-4,
        "All tokens arrive at once: the times were taken after the stream had ended. Note each inside the loop.",
    )


def _metrics(tokens: float, steps: float, at: float, prompt: float = 100.0) -> Metrics:
    values = {"generation_tokens_total": tokens, "prompt_tokens_total": prompt}
    values |= {"iteration_tokens_total_count": steps, "iteration_tokens_total_sum": tokens + prompt}
    return Metrics(values, time=at)


@exercise("01.counters", version=1, title="Turn a counter into a rate", minutes=5)
def counters(tokens_per_second: Callable[[Metrics, Metrics], float]) -> None:
    require_function(tokens_per_second, "tokens_per_second")
    before, after = _metrics(1000, 10, at=50.0), _metrics(1300, 40, at=52.0, prompt=600.0)
    got, want = tokens_per_second(before, after), 150.0
    mistakes = {
        1300.0: "That is the counter itself. It counts since the server started: take the difference.",
        650.0: "You divided the whole counter by the seconds. Take the difference of the counter first.",
        300.0: "That is how many tokens were generated in between. Per second means: divide by the seconds.",
        -150.0: "The sign is turned round: later minus earlier.",
        400.0: "You counted prompt tokens too. `generation_tokens_total` has the generated ones.",
        25.0: "You divided by the clock reading. The seconds in between are `after.time - before.time`.",
        250.0: "Those are prompt tokens per second. `generation_tokens_total` counts the generated ones.",
    }
    require_number(got, mistakes)
    require(
        isclose(got, want, rel_tol=1e-3),
        f"300 tokens in 2 seconds gave {got:.4g}. Difference of the counter, over difference of the times.",
        "`change = after - before`, then `change['generation_tokens_total'] / change.time`",
    )


@exercise("01.batching", version=1, title="Prove batching from the server's own counters", minutes=6)
def batching(mean_batch: Callable[[Metrics], float], change: Metrics) -> None:
    require_function(mean_batch, "mean_batch")
    got = mean_batch(_metrics(800, 100, at=2.0))
    mistakes = {
        400.0: "That is tokens per second. How many tokens came out of one engine step, on average?",
        0.125: "Turned round: that is steps per token. Tokens over steps.",
        9.0: "`iteration_tokens_total_sum` has prompt tokens in it as well; take `generation_tokens_total`.",
        800.0: "That is all tokens. Divide by how many engine steps made them.",
    }
    require_number(got, mistakes)
    require(
        isclose(got, 8.0, rel_tol=1e-3),
        f"800 tokens in 100 engine steps gave {got:.4g}; each step makes one token for each running request.",
        "`change['generation_tokens_total'] / change['iteration_tokens_total_count']`",
    )
    seen = mean_batch(change)
    require(
        seen > 2,
        f"The function is right, but your run shows {seen:.2g} requests a step: nothing ran together. Fire all "
        "prompts at once, between the two scrapes.",
    )


@exercise("01.waves", version=1, title="Predict what a limit on running requests does", minutes=4)
def waves(
    waves: object, longest_queue: object, requests: int, max_num_seqs: int, measured_queue: float
) -> None:
    for name, value in (("waves", waves), ("longest_queue", longest_queue)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise Mistake(f"`{name}` must be a whole number, and it is {value!r}.")
    require(
        waves != max_num_seqs or requests == max_num_seqs**2,
        "That is how many run together. How many rounds of that size do all requests need?",
    )
    require(
        waves == ceil(requests / max_num_seqs),
        f"{waves} waves is not it: {requests} requests of equal length, {max_num_seqs} at a time.",
        f"`{requests} / {max_num_seqs}`, rounded up.",
    )
    require(
        longest_queue != requests,
        "All of them wait for a moment, but the first ones start at once. Who is still waiting then?",
    )
    require(
        longest_queue == requests - max_num_seqs,
        f"A queue of {longest_queue} is not it. {requests} arrive together, {max_num_seqs} start: the rest waits.",
    )
    require(
        measured_queue <= longest_queue,
        f"Your arithmetic is right, but vLLM reported {measured_queue:.0f} waiting. Start the server anew, fire again.",
    )
