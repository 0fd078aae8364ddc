"""Right and wrong formulas for the latencies of one request, and for a percentile of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from statistics import mean, median

import numpy as np

from engineroom.load import stats
from engineroom.load.trace import Trace
from labs.kit.check import (
    Mistake,
    close,
    require,
    require_formula,
    require_mapping,
    require_number,
    require_sequence,
)
from labs.kit.formula import Mistakes
from labs.measure.examples import TRACES

NAMES = ("ttft", "e2e", "itl", "tpot")
CLOCK = "That is a clock reading. Subtract the moment of sending, `trace.sent`."
MILLISECONDS = "Those are milliseconds. Return seconds."


def decoding(trace: Trace) -> float:
    """Seconds from the first token to the last."""
    return trace.arrivals[-1] - trace.arrivals[0]


TTFT_MISTAKES: Mistakes = [
    (lambda trace: trace.arrivals[0], CLOCK),
    (lambda trace: 1000 * stats.ttft(trace), MILLISECONDS),
    (stats.e2e, "That is the wait for the **last** token. The first is `trace.arrivals[0]`."),
    (lambda trace: trace.arrivals[1] - trace.sent, "That is the second token: a list begins with index 0."),
    (lambda trace: trace.arrivals[1] - trace.arrivals[0], "That is the first gap between two tokens."),
    (lambda trace: -stats.ttft(trace), "The sign is reversed: the token arrives after sending."),
]
E2E_MISTAKES: Mistakes = [
    (lambda trace: trace.arrivals[-1], CLOCK),
    (lambda trace: 1000 * stats.e2e(trace), MILLISECONDS),
    (decoding, "It leaves out the wait for the first token. It begins at `trace.sent`."),
    (stats.ttft, "That is the wait for the **first** token. The last is `trace.arrivals[-1]`."),
    (lambda trace: trace.arrivals[-2] - trace.sent, "That is the last token but one."),
]
GAPS = "`tpot` divides by the number of gaps, one less than the number of tokens: the first token belongs to TTFT."
TPOT_MISTAKES: Mistakes = [
    (lambda trace: decoding(trace) / len(trace.arrivals), GAPS),
    (lambda trace: stats.e2e(trace) / len(trace.arrivals), GAPS),
    (
        lambda trace: stats.e2e(trace) / (len(trace.arrivals) - 1),
        "`tpot` leaves TTFT out. Subtract TTFT from `e2e` before you divide.",
    ),
    (
        lambda trace: max(stats.itl(trace)),
        "That is the longest gap, a single stall. `tpot` is the mean of the gaps.",
    ),
    (lambda trace: median(stats.itl(trace)), "That is the median gap. `tpot` is the mean of the gaps."),
    (lambda trace: min(stats.itl(trace)), "That is the shortest gap. `tpot` is the mean of the gaps."),
    (decoding, "That is the sum of all gaps. Divide by their number."),
    (lambda trace: (len(trace.arrivals) - 1) / decoding(trace), "That is the inverse: tokens per second."),
    (lambda trace: 1000 * stats.tpot(trace), MILLISECONDS),
]


def check_latencies(latencies: Callable[[Trace], Mapping[str, object]]) -> None:
    """Raise Mistake unless the function returns the four latencies of each example."""
    inputs = {name: (trace,) for name, trace in TRACES.items()}

    def entry(name: str) -> Callable[[Trace], object]:
        return lambda trace: _entries(latencies(trace))[name]

    require_formula(
        entry("ttft"),
        stats.ttft,
        inputs,
        "It is the time from `trace.sent` to the first of `trace.arrivals`.",
        mistakes=TTFT_MISTAKES,
        subject="`ttft`",
    )
    require_formula(
        entry("e2e"),
        stats.e2e,
        inputs,
        "It is the time from `trace.sent` to the last of `trace.arrivals`.",
        mistakes=E2E_MISTAKES,
        subject="`e2e`",
    )
    for trace in TRACES.values():
        _check_gaps(_entries(latencies(trace))["itl"], trace)
    require_formula(
        entry("tpot"),
        stats.tpot,
        inputs,
        "It is `(e2e - ttft) / (number of tokens - 1)`.",
        mistakes=TPOT_MISTAKES,
        subject="`tpot`",
    )


def _entries(output: object) -> dict[str, object]:
    entries = require_mapping(output, f"Return a dictionary with the keys {', '.join(NAMES)}.")
    missing = [name for name in NAMES if name not in entries]
    require(not missing, f"The dictionary has no key {', '.join(missing)}. Return {', '.join(NAMES)}.")
    unfinished = [name for name in NAMES if entries[name] is ... or entries[name] is None]
    require(not unfinished, f"These are still `...`: {', '.join(unfinished)}.")
    return entries


def _check_gaps(itl: object, trace: Trace) -> None:
    expected = stats.itl(trace)
    values = require_sequence(itl, "`itl` is a list: one gap for each token but the first.")
    gaps = [require_number(value, subject="One gap of `itl`") for value in values]
    tokens = len(trace.arrivals)
    require(
        len(gaps) == len(expected),
        f"`itl` is a list with one gap for each token **but the first**: {tokens} tokens have {tokens - 1} gaps, and "
        f"yours are {len(gaps)}.",
    )
    if all(map(close, gaps, expected)):
        return
    for wrong, hint in [
        ([1000 * gap for gap in expected], "`itl` is in milliseconds. Return seconds."),
        (
            [-gap for gap in expected],
            "The gaps are negative: subtract the earlier arrival from the later one.",
        ),
        (
            [arrival - trace.sent for arrival in trace.arrivals[1:]],
            "`itl` has waits since sending. Each gap is one arrival minus the arrival **before** it.",
        ),
        (
            [arrival - trace.arrivals[0] for arrival in trace.arrivals[1:]],
            "`itl` has waits since the first token. Each gap is one arrival minus the arrival **before** it.",
        ),
        (sorted(expected), "The gaps are sorted: keep them in the order of the tokens."),
        (expected[::-1], "The gaps are in reverse order: the first is that before the second token."),
        ([mean(expected)] * len(expected), "Every gap is the mean. Each token has a gap of its own."),
        (
            trace.arrivals[1:],
            "`itl` has clock readings. Each gap is one arrival minus the arrival before it.",
        ),
    ]:
        require(not all(map(close, gaps, wrong)), hint)
    raise Mistake(
        "`itl` is not right. Each gap is one arrival minus the arrival before it.",
        "`[b - a for a, b in zip(trace.arrivals, trace.arrivals[1:])]`",
    )


def percentile_range(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest 99th percentile by any of the usual definitions (Hyndman and Fan, 1996)."""
    ascending = sorted(values)
    low = floor(0.99 * (len(values) - 1))
    high = min(len(values), ceil(0.99 * (len(values) + 1))) - 1
    return ascending[low], ascending[high]


PERCENTILE_MISTAKES: Mistakes = [
    (
        mean,
        "That is the mean: it hides the slowest. Of 200 sorted values, about the 198th is the 99th percentile.",
    ),
    (
        max,
        "That is the maximum. One percent of the requests may be slower than the 99th percentile.",
    ),
    (median, "That is the median: half of the requests are slower. The 99th percentile is near the end."),
    (min, "That is the minimum. Sort ascending; the 99th percentile is near the end of the list."),
    (
        lambda values: np.percentile(values, 0.99),
        "That is the percentile of 0.99 %. `numpy.percentile` counts in percent: pass 99.",
    ),
    (
        lambda values: sorted(values, reverse=True)[round(0.99 * (len(values) - 1))],
        "You sorted in descending order, so that is near the minimum.",
    ),
    (lambda values: np.percentile(values, 95), "That is the 95th percentile."),
    (lambda values: np.percentile(values, 90), "That is the 90th percentile."),
    (
        lambda values: np.percentile(values, 99.9),
        "That is the 99.9th percentile: one request in a thousand is slower.",
    ),
    (
        lambda values: sorted(values)[-2],
        "That is the last value but one, whatever the length of the list. Of 1000 values, ten are slower than p99.",
    ),
    (
        lambda values: values[round(0.99 * (len(values) - 1))],
        "That value is at the right place of a list that is not sorted. Sort first.",
    ),
    (
        lambda values: values[int(0.99 * len(values))],
        "That value is at the right place of a list that is not sorted. Sort first.",
    ),
    (lambda values: 0.99 * max(values), "That is 99 % of the maximum. Which value do 99 % not exceed?"),
    (lambda values: round(0.99 * (len(values) - 1)), "That is the index. Return the value at it."),
    (lambda values: int(0.99 * len(values)), "That is the index. Return the value at it."),
    (
        lambda values: sorted(values)[min(99, len(values)) - 1],
        "That is the 99th value, whatever the length of the list. The index is 99 % of the length.",
    ),
    (
        lambda values: sorted(values)[min(99, len(values) - 1)],
        "That is the 100th value, whatever the length of the list. The index is 99 % of the length.",
    ),
]
