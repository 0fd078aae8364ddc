"""The exercises of lesson 01."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite

from engineroom.metrics.prometheus import Metrics
from labs.kit.check import (
    Mistake,
    close,
    exercise,
    require,
    require_formula,
    require_function,
    require_number,
    require_whole_number,
    shown,
)
from labs.serve_with_vllm.check_stream import check_stream
from labs.serve_with_vllm.formulas import (
    BATCH_MISTAKES,
    GENERATED,
    RATE_MISTAKES,
    READINGS,
    STEP_COUNT,
    STEPS,
    rate,
)
from labs.serve_with_vllm.wire import WireFacts


@exercise("01.streaming", version=2, title="Note when each token of a stream arrives", minutes=6)
def streaming(times: object, wire: WireFacts) -> None:
    check_stream(times, wire)


@exercise("01.counters", version=1, title="Turn a counter into a rate", minutes=5)
def counters(tokens_per_second: Callable[[Metrics, Metrics], float]) -> None:
    require_function(tokens_per_second, "tokens_per_second")
    require_formula(
        tokens_per_second,
        rate,
        READINGS,
        "Divide the difference of the counter by the difference of the times.",
        "`change = after - before`, then `change['generation_tokens_total'] / change.time`",
        mistakes=RATE_MISTAKES,
    )


@exercise("01.batching", version=1, title="Prove batching from the server's own counters", minutes=6)
def batching(mean_batch: Callable[[Metrics], float], change: Metrics) -> None:
    require_function(mean_batch, "mean_batch")
    require_formula(
        mean_batch,
        lambda change: change[GENERATED] / change[STEP_COUNT],
        STEPS,
        "Each step generates one token for each running request.",
        "`change['generation_tokens_total'] / change['iteration_tokens_total_count']`",
        mistakes=BATCH_MISTAKES,
    )
    _check_run(mean_batch, change)


def _check_run(mean_batch: Callable[[Metrics], float], change: object) -> None:
    """The learner's formula and their run: requests ran together."""
    if not isinstance(change, Metrics) or not change.get(STEP_COUNT):
        raise Mistake(
            "The function is right, but `change` is not of your run. Run the cell with the sixteen questions again."
        )
    measured_batch = require_number(mean_batch(change), subject="For your own run the function")
    expected = change[GENERATED] / change[STEP_COUNT]
    require(
        close(measured_batch, expected),
        f"For your own run the function gave {measured_batch:.4g}, but the server counted {change[GENERATED]:.0f} "
        f"tokens in {change[STEP_COUNT]:.0f} steps.",
    )
    require(
        measured_batch > 2,
        f"The function is right, but your run shows {measured_batch:.2g} requests a step: nothing ran together. Fire "
        "all prompts at once, between the two scrapes.",
    )


@exercise("01.waves", version=1, title="Predict what a limit on running requests does", minutes=4)
def waves(
    waves: object, longest_queue: object, requests: int, max_num_seqs: int, measured_queue: float
) -> None:
    require(max_num_seqs > 0, "`max_num_seqs` is 0. Run the cell that sets it again.")
    _check_waves(_whole_waves(waves), requests, max_num_seqs)
    predicted_queue = require_whole_number("longest_queue", longest_queue)
    _check_queue(predicted_queue, requests, max_num_seqs)
    require(
        measured_queue <= predicted_queue,
        f"Your arithmetic is right, but vLLM reported {measured_queue:.0f} waiting requests. Start the server again "
        "and fire again.",
    )


def _whole_waves(waves: object) -> int:
    require(
        not isinstance(waves, float) or not isfinite(waves) or waves.is_integer(),
        f"`waves` must be a whole number, not {shown(waves)}. The last wave may be smaller, but it counts: round up.",
    )
    return require_whole_number("waves", waves)


def _check_waves(waves: int, requests: int, max_num_seqs: int) -> None:
    expected = ceil(requests / max_num_seqs)
    require(
        waves != max_num_seqs or expected == max_num_seqs,
        "That is how many requests run together. How many rounds of that size do all requests need?",
    )
    require(
        waves != requests or expected == requests,
        f"{waves} waves would be one request at a time. {max_num_seqs} run together.",
    )
    require(waves != 1 or expected == 1, f"In one wave all would run at once, but only {max_num_seqs} may.")
    require(
        waves not in (expected - 1, expected + 1),
        f"{waves} waves of {max_num_seqs} are {waves * max_num_seqs} requests; there are {requests}.",
        f"`{requests} / {max_num_seqs}`, rounded up.",
    )
    require(
        waves == expected,
        f"{waves} waves is not it: {requests} requests of equal length run, {max_num_seqs} at a time.",
        f"`{requests} / {max_num_seqs}`, rounded up.",
    )


def _check_queue(queue: int, requests: int, max_num_seqs: int) -> None:
    expected = requests - max_num_seqs
    require(
        queue != requests,
        "All of them wait for a moment, but the first ones start at once. Which ones still wait then?",
    )
    require(
        queue != max_num_seqs or expected == max_num_seqs,
        f"{queue} is how many run. {requests} arrive at once, {max_num_seqs} start, and the rest waits.",
    )
    require(
        queue or not expected,
        f"With a queue of 0 nobody waits, but {requests} arrive at once and only {max_num_seqs} start.",
    )
    require(
        queue != requests - 2 * max_num_seqs or queue == expected,
        "That is the queue during the second wave. It is longest at the beginning.",
    )
    require(
        queue == expected,
        f"A queue of {queue} is not it. {requests} arrive at once, {max_num_seqs} start, and the rest waits.",
    )
