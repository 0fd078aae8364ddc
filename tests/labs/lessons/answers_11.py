"""Lesson 11: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas
import torch

from labs.profile.check_self_time import (
    descendants_subtracted,
    in_list_order,
    last_call,
    leaves_alone,
    longest_call,
    mean_of_calls,
    shares,
    time_of_children,
    within_other_names,
    without_threads,
)
from labs.profile.formulas import (
    Config,
    attainable,
    attention_products,
    head_weights,
    kv_values,
    matrix_weights,
    share_of_roof,
    step_bytes,
    step_operations,
)
from labs.profile.mistakes import bytes_of, operations_of, without_gate, without_tied_head
from labs.profile.serving import Profile
from labs.profile.spans import Span, self_times, total_times

# --- 11.counts ------------------------------------------------------------------------------------------------------


def matrices(config: Config) -> list[tuple[int, int]]:
    """Every matrix of the model as (rows, columns)."""
    hidden, size = config["hidden_size"], config["head_dim"]
    query, kv = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    layer = [(query, hidden), (kv, hidden), (kv, hidden), (hidden, query)]
    layer += [(config["intermediate_size"], hidden)] * 2 + [(hidden, config["intermediate_size"])]
    return layer * config["num_hidden_layers"] + [(config["vocab_size"], hidden)]


def operations_by_matrix(config: Config, batch: int, context: int) -> int:
    products = sum(2 * rows * columns * batch for rows, columns in matrices(config))
    for _layer in range(config["num_hidden_layers"]):
        scores = 2 * config["num_attention_heads"] * config["head_dim"] * context * batch
        products += scores + scores
    return products


def bytes_by_matrix(config: Config, batch: int, context: int, itemsize: int) -> int:
    num_bytes = sum(rows * columns for rows, columns in matrices(config)) * itemsize
    for _sequence in range(batch):
        for _layer in range(config["num_hidden_layers"]):
            num_bytes += 2 * config["num_key_value_heads"] * config["head_dim"] * context * itemsize
    return num_bytes


def operations_in_numpy(config: Config, batch: int, context: int) -> Any:
    return np.int64(2) * (
        np.int64(matrix_weights(config)) * batch + attention_products(config, batch, context)
    )


def bytes_in_torch(config: Config, batch: int, context: int, itemsize: int) -> Any:
    return torch.tensor(step_bytes(config, batch, context, itemsize), dtype=torch.float64)


def operations_with_norms(config: Config, batch: int, context: int) -> int:
    """Counts the norms as well, which are far less than one per cent."""
    norms = 4 * batch * config["hidden_size"] * (2 * config["num_hidden_layers"] + 1)
    return step_operations(config, batch, context) + norms


def bytes_with_new_keys(config: Config, batch: int, context: int, itemsize: int) -> int:
    """Counts the keys and values that the step writes, and the embedding's rows, as well."""
    return step_bytes(config, batch, context + 1, itemsize) + batch * config["hidden_size"] * itemsize


COUNTS_RIGHT: list[tuple[Any, ...]] = [
    (step_operations, step_bytes),
    (operations_by_matrix, bytes_by_matrix),
    (operations_in_numpy, bytes_in_torch),
    (operations_with_norms, bytes_with_new_keys),
    (lambda *a: Fraction(step_operations(*a)), lambda *a: float(step_bytes(*a))),
]

COUNTS_WRONG: list[tuple[tuple[Any, ...], str]] = [
    ((5, step_bytes), "Pass it uncalled"),
    ((step_operations, 5), "step_bytes"),
    ((lambda c, b, n: print(end=""), step_bytes), "not a number"),
    ((lambda c, b, n: step_operations(c, b, n) // 2, step_bytes), "multiplication and an addition"),
    ((lambda c, b, n: step_operations(c, 1, n), step_bytes), "one sequence"),
    ((lambda c, b, n: 2 * b * matrix_weights(c), step_bytes), "Attention is missing"),
    (
        (lambda c, b, n: 2 * (b * matrix_weights(c) + kv_values(c, b, n)), step_bytes),
        "share its bytes, but each of them",
    ),
    ((lambda c, b, n: operations_of(without_tied_head(c), c, b, n), step_bytes), "where it is tied"),
    ((lambda c, b, n: operations_of(without_gate(c), c, b, n), step_bytes), "gate, up and down"),
    (
        (lambda c, b, n: operations_of(matrix_weights(c) - head_weights(c), c, b, n), step_bytes),
        "You left out the head",
    ),
    ((lambda c, b, n: n * step_operations(c, b, n), step_bytes), "one new token"),
    ((lambda c, b, n: c["n_layers"], step_bytes), "KeyError"),
    (
        (step_operations, lambda c, b, n, s: s * (b * matrix_weights(c) + kv_values(c, b, n))),
        "once for the whole batch",
    ),
    ((step_operations, lambda c, b, n, s: s * matrix_weights(c)), "KV cache is missing"),
    ((step_operations, lambda c, b, n, s: step_bytes(c, b, n, 2)), "use `itemsize`"),
    ((step_operations, lambda c, b, n, s: step_bytes(c, b, n, 1)), "counts values"),
    (
        (step_operations, lambda c, b, n, s: step_bytes(c, 1, n, s)),
        "Each of the `batch` sequences has its own",
    ),
    (
        (step_operations, lambda c, b, n, s: s * (matrix_weights(c) + attention_products(c, b, n))),
        "a head for each query head",
    ),
    ((step_operations, lambda c, b, n, s: s * kv_values(c, b, n)), "The weights are missing"),
    (
        (step_operations, lambda c, b, n, s: s * (matrix_weights(c) + kv_values(c, b, n) // 2)),
        "There are keys and values",
    ),
    (
        (step_operations, lambda c, b, n, s: bytes_of(matrix_weights(c) + head_weights(c), c, b, n, s)),
        "embedding table as well",
    ),
    (
        (
            step_operations,
            lambda c, b, n, s: bytes_of(
                matrix_weights(c) + (not c["tie_word_embeddings"]) * head_weights(c), c, b, n, s
            ),
        ),
        "where it is not tied",
    ),
]

# --- 11.roof --------------------------------------------------------------------------------------------------------


def attainable_by_case(operations: float, num_bytes: float, bandwidth: float, matrix_rate: float) -> float:
    if operations / num_bytes < matrix_rate / bandwidth:
        return bandwidth * operations / num_bytes
    return matrix_rate


def attainable_from_time(operations: float, num_bytes: float, bandwidth: float, matrix_rate: float) -> float:
    return operations / max(operations / matrix_rate, num_bytes / bandwidth)


def share_of_time(
    operations: float, num_bytes: float, seconds: float, bandwidth: float, matrix_rate: float
) -> float:
    return max(operations / matrix_rate, num_bytes / bandwidth) / seconds


ROOF_RIGHT: list[tuple[Any, ...]] = [
    (attainable, share_of_roof),
    (attainable_by_case, share_of_time),
    (attainable_from_time, lambda *a: np.float32(share_of_roof(*a))),
    (lambda *a: torch.tensor(attainable(*a)), lambda *a: Decimal(share_of_roof(*a))),
    (lambda o, n, b, r: np.minimum(r, b * o / n), lambda o, n, s, b, r: np.max([o / r, n / b]) / s),
]

ROOF_WRONG: list[tuple[tuple[Any, ...], str]] = [
    ((1.0, share_of_roof), "Pass it uncalled"),
    ((attainable, "share"), "share_of_roof"),
    ((lambda o, n, b, r: max(r, o / n * b), share_of_roof), "The lower one binds"),
    ((lambda o, n, b, r: max(o / r, n / b), share_of_roof), "Those are seconds"),
    ((lambda o, n, b, r: o / (o / r + n / b), share_of_roof), "You added the two times"),
    ((lambda o, n, b, r: min(r, n / o * b), share_of_roof), "upside down"),
    ((lambda o, n, b, r: min(r, b), share_of_roof), "Multiply the bandwidth by the intensity"),
    ((lambda o, n, b, r: r, share_of_roof), "flat ceiling"),
    ((lambda o, n, b, r: o / n * b, share_of_roof), "sloping ceiling"),
    ((lambda o, n, b, r: o / n, share_of_roof), "That is the intensity"),
    ((lambda o, n, b, r: None, share_of_roof), "not a number"),
    ((attainable, lambda o, n, s, b, r: attainable(o, n, b, r) * s / o), "upside down"),
    ((attainable, lambda *a: 100 * share_of_roof(*a)), "per cent"),
    ((attainable, lambda o, n, s, b, r: o / s / r), "matrix rate alone"),
    ((attainable, lambda o, n, s, b, r: n / s / b), "bandwidth alone"),
    ((attainable, lambda o, n, s, b, r: o / attainable(o, n, b, r)), "seconds of a step on the roof"),
    ((attainable, lambda o, n, s, b, r: o / s), "measured rate"),
    ((attainable, lambda o, n, s, b, r: o * s / attainable(o, n, b, r)), "multiplied by the seconds"),
    ((attainable, lambda *a: 1 - share_of_roof(*a)), "what is missing to the roof"),
    ((attainable, lambda o, n, s, b, r: 0.5), "the same for every input"),
]

# --- 11.self_time ---------------------------------------------------------------------------------------------------


def self_times_by_pairs(spans: Sequence[Span]) -> dict[str, float]:
    """For each span the shortest one around it, found by comparing all pairs."""
    times: defaultdict[str, float] = defaultdict(float)
    for index, span in enumerate(spans):
        times[span.name] += span.end - span.begin
        around = [
            other
            for position, other in enumerate(spans)
            if position != index
            and other.thread == span.thread
            and other.begin <= span.begin
            and span.end <= other.end
        ]
        if around:
            times[min(around, key=lambda other: other.end - other.begin).name] -= span.end - span.begin
    return times


def self_times_by_recursion(spans: Sequence[Span]) -> dict[str, float]:
    """The outermost spans of each thread, then those within them."""
    times: dict[str, float] = {}

    def visit(inner: list[Span]) -> None:
        while inner:
            outer = inner.pop(0)
            within = [span for span in inner if span.thread == outer.thread and span.end <= outer.end]
            inner = [span for span in inner if span not in within]
            covered = sum(span.end - span.begin for span in outermost(within))
            times[outer.name] = times.get(outer.name, 0) + outer.end - outer.begin - covered
            visit(within)

    def outermost(within: list[Span]) -> list[Span]:
        result: list[Span] = []
        for span in within:
            if not result or span.begin >= result[-1].end:
                result.append(span)
        return result

    for thread in {span.thread for span in spans}:
        visit(sorted((s for s in spans if s.thread == thread), key=lambda span: (span.begin, -span.end)))
    return times


def self_times_by_events(spans: Sequence[Span]) -> dict[str, float]:
    """Walks along begins and ends; each moment belongs to the innermost open span."""
    times = dict.fromkeys((span.name for span in spans), 0.0)
    for thread in {span.thread for span in spans}:
        mine = [span for span in spans if span.thread == thread]
        moments = sorted({moment for span in mine for moment in (span.begin, span.end)})
        for begin, end in pairwise(moments):
            around = [span for span in mine if span.begin <= begin and end <= span.end]
            if around:
                times[min(around, key=lambda span: span.end - span.begin).name] += end - begin
    return times


SELF_TIME_RIGHT: list[tuple[Any, ...]] = [
    (self_times,),
    (self_times_by_pairs,),
    (self_times_by_recursion,),
    (self_times_by_events,),
    (lambda spans: pandas.Series(self_times(spans)),),
    (lambda spans: {name: np.float64(time) for name, time in self_times(spans).items()},),
]

SELF_TIME_WRONG: list[tuple[tuple[Any, ...], str]] = [
    ((5,), "Pass it uncalled"),
    ((total_times,), "Those are total times"),
    ((descendants_subtracted,), "subtract each span once"),
    ((without_threads,), "spans nest on one thread"),
    ((in_list_order,), "sort by `begin` first"),
    ((within_other_names,), "the same name"),
    ((leaves_alone,), "time of its own"),
    ((last_call,), "one call of each name"),
    ((mean_of_calls,), "mean of the calls"),
    ((longest_call,), "longest call"),
    ((shares,), "Return microseconds"),
    ((time_of_children,), "the spans within"),
    ((lambda spans: sum(span.end - span.begin for span in spans),), "must return a dictionary"),
    ((lambda spans: {},), "has no"),
    ((lambda spans: self_times(spans) | {"other": 1.0},), "no such name"),
    ((lambda spans: dict.fromkeys(self_times(spans), None),), "not a number"),
    ((lambda spans: {name: 2 * time for name, time in self_times(spans).items()},), "of its own; you have"),
    ((lambda spans: {name: -time for name, time in self_times(spans).items()},), "wrong sign"),
]

# --- 11.bottleneck --------------------------------------------------------------------------------------------------

NUM_STEPS, BATCH, LAYERS = 5, 3, 4
HEALTHY_US = {"choose_token": 10.0, "cache_layout": 1.0, "detokenize": 8.0}
PLANTED_US = {"choose_token": 700.0, "cache_layout": 900.0, "detokenize": 600.0}
HEALTHY_COUNTS = {"choose_token": NUM_STEPS * BATCH, "cache_layout": 0, "detokenize": 9 * NUM_STEPS * BATCH}
PLANTED_COUNTS = {"choose_token": 61_440, "cache_layout": 300_000, "detokenize": 8_000}


def trace(microseconds: dict[str, float]) -> list[Span]:
    """The spans of a small server whose functions take so long in each call."""
    spans: list[Span] = []
    now = 0.0

    def add(name: str, duration: float) -> None:
        nonlocal now
        spans.append(Span(name, now, now + duration))
        now += duration

    for _step in range(NUM_STEPS):
        begin = now
        add("schedule", 20)
        for _cache in range(2 * LAYERS):
            add("cache_layout", microseconds["cache_layout"])
        add("forward", 2000)
        for _sequence in range(BATCH):
            add("choose_token", microseconds["choose_token"])
        now += 15
        spans.append(Span("step", begin, now))
        for _sequence in range(BATCH):
            add("detokenize", microseconds["detokenize"])
    return spans


def profiled(planted: str | None = None, /, **changed: Any) -> Profile:
    """The profile of a server with this bottleneck, or of a healthy one."""
    slow = {planted} if planted else set()
    profile = Profile(
        spans=trace({name: (PLANTED_US if name in slow else HEALTHY_US)[name] for name in HEALTHY_US}),
        prompts=[[1, 2, 3], [4, 5], [6]],
        answers=[[7] * NUM_STEPS, [8] * NUM_STEPS, [9] * NUM_STEPS],
        texts=["a b c", "d", "é"],
        counts={name: (PLANTED_COUNTS if name in slow else HEALTHY_COUNTS)[name] for name in HEALTHY_COUNTS},
    )
    return replace(profile, **changed)


def evidence(span: str, /, **changed: Any) -> dict[str, Any]:
    before = profiled(span)
    return {"span": span, "calls": before.calls[span], "share": before.share(span)} | changed


def solved(span: str, /, **changed: Any) -> tuple[Any, ...]:
    return evidence(span, **changed), profiled(span), profiled()


def after(span: str, /, **changed: Any) -> tuple[Any, ...]:
    """The right evidence, and this second profile."""
    return evidence(span), profiled(span), profiled(**changed)


HEALTHY_SPANS = trace(HEALTHY_US)
READS, COPIES, DECODES = "choose_token", "cache_layout", "detokenize"
ALL_US = sum(span.duration for span in profiled(READS).spans)
STEP_US = total_times(profiled(DECODES).spans)["step"]
DECODES_US = self_times(profiled(DECODES).spans)[DECODES]
READS_US = self_times(profiled(READS).spans)[READS]

BOTTLENECK_RIGHT: list[tuple[Any, ...]] = [
    solved(READS),
    solved(COPIES),
    solved(DECODES),
    (MappingProxyType(evidence(READS)), profiled(READS), profiled()),
    (SimpleNamespace(**evidence(COPIES)), profiled(COPIES), profiled()),
    (pandas.Series(evidence(DECODES)), profiled(DECODES), profiled()),
    solved(READS, calls=np.int64(NUM_STEPS * BATCH), share=torch.tensor(profiled(READS).share(READS))),
    solved(COPIES, share=round(profiled(COPIES).share(COPIES), 2)),
]

BOTTLENECK_WRONG: list[tuple[tuple[Any, ...], str]] = [
    ((5, profiled(READS), profiled()), "I expected a dictionary"),
    (({"span": READS}, profiled(READS), profiled()), "yours has no calls, share"),
    (solved(READS, share=...), "Still `...`: share"),
    (solved(READS, span="sampler"), "The suspects are"),
    (solved(READS, span="forward"), "the model itself"),
    (solved(READS, span="step"), "the same in every server"),
    (solved(READS, span="schedule"), "the same in every server"),
    (solved(READS, span=COPIES), "many calls, but they are short"),
    (solved(COPIES, span=DECODES), "another suspect takes more"),
    (solved(READS, calls=len(HEALTHY_SPANS)), "the number of all spans"),
    (solved(READS, calls=NUM_STEPS), "the number of steps"),
    (solved(READS, calls=BATCH), "the number of requests"),
    (solved(READS, calls=2 * LAYERS * NUM_STEPS), "'cache_layout' was called that often"),
    (solved(READS, calls=7), "How often does its name occur"),
    (solved(READS, calls="15"), "must be a whole number"),
    (solved(READS, share=100 * profiled(READS).share(READS)), "in per cent"),
    (solved(READS, share=READS_US), "a time in microseconds"),
    (solved(DECODES, share=DECODES_US / STEP_US), "the time of `step` alone"),
    (solved(READS, share=READS_US / ALL_US), "the total times"),
    (solved(READS, share=NUM_STEPS * BATCH / len(HEALTHY_SPANS)), "a share of the calls"),
    (solved(READS, share=0.9), "are not 0.9 of all self times"),
    ((evidence(READS), profiled(), profiled()), "no profile of a server with a planted bottleneck"),
    ((evidence(READS), profiled(READS), profiled(READS)), "still does too much: 61,440 logits read"),
    ((evidence(COPIES), profiled(COPIES), profiled(COPIES)), "keys and values copied"),
    ((evidence(DECODES), profiled(DECODES), profiled(DECODES)), "tokens decoded"),
    (after(READS, answers=[[7] * NUM_STEPS, [8] * NUM_STEPS, [9, 9, 9, 9, 1]]), "1 of 3 answers changed"),
    (after(DECODES, texts=["a b c", "d", "\ufffd"]), "1 of 3 texts changed"),
    (after(READS, prompts=[[1, 2, 3]]), "another load"),
    (after(READS, answers=[[7], [8], [9]]), "another load"),
    (after(READS, spans=[span for span in HEALTHY_SPANS if span.name != READS]), "was called 0 times"),
    (after(READS, spans=profiled(READS).spans), "it still has"),
    ((evidence(READS), profiled(READS), HEALTHY_SPANS), "what `profile_serving` returned"),
]

RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "11.counts": COUNTS_RIGHT,
    "11.roof": ROOF_RIGHT,
    "11.self_time": SELF_TIME_RIGHT,
    "11.bottleneck": BOTTLENECK_RIGHT,
}
WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    *(("11.counts", values, hint) for values, hint in COUNTS_WRONG),
    *(("11.roof", values, hint) for values, hint in ROOF_WRONG),
    *(("11.self_time", values, hint) for values, hint in SELF_TIME_WRONG),
    *(("11.bottleneck", values, hint) for values, hint in BOTTLENECK_WRONG),
]
