"""Judge a learner's self times: on small traces in which the usual mistakes differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from labs.kit.check import Mistake, close, require, require_mapping, require_number
from labs.kit.requirements import TOLERANCE
from labs.kit.values import shown
from labs.profile.spans import Span, parents, self_durations, self_times, total_times

SelfTimes = Callable[[list[Span]], Mapping[str, float]]

STEP = [Span("step", 0, 100), Span("schedule", 3, 15), Span("forward", 20, 90), Span("attention", 31, 54)]
TRACES: dict[str, list[Span]] = {
    "a step with spans three deep": STEP,
    "two steps, and spans of one name": [
        Span("step", 0, 70), Span("forward", 5, 42), Span("copy", 8, 19), Span("copy", 23, 26),
        Span("step", 81, 133), Span("forward", 90, 121),
    ],
    "spans in the order of their ends": sorted(STEP, key=lambda span: span.end),
    "two threads at the same time": [*STEP, Span("detokenize", 22, 29, 7), Span("decode", 23, 25, 7)],
    "a span within one of the same name": [Span("copy", 0, 47), Span("copy", 11, 30), Span("copy", 13, 18)],
    "spans that touch": [
        Span("step", 0, 61), Span("schedule", 0, 17), Span("forward", 17, 61), Span("step", 61, 80),
    ],
}  # fmt: skip


def descendants_subtracted(spans: Sequence[Span]) -> dict[str, float]:
    """Whatever lies within a span, at any depth, is subtracted from it."""
    around = parents(spans)
    own = [span.duration for span in spans]
    for index, span in enumerate(spans):
        parent = around[index]
        while parent is not None:
            own[parent] -= span.duration
            parent = around[parent]
    return _sums([(span.name, duration) for span, duration in zip(spans, own, strict=True)])


def without_threads(spans: Sequence[Span]) -> dict[str, float]:
    return self_times([span._replace(thread=0) for span in spans])


def leaves_alone(spans: Sequence[Span]) -> dict[str, float]:
    """Spans with others within them count nothing."""
    around = set(parents(spans))
    return _sums([(span.name, 0 if index in around else span.duration) for index, span in enumerate(spans)])


def last_call(spans: Sequence[Span]) -> dict[str, float]:
    return dict(self_durations(spans))


def mean_of_calls(spans: Sequence[Span]) -> dict[str, float]:
    return _grouped(spans, mean)


def longest_call(spans: Sequence[Span]) -> dict[str, float]:
    return _grouped(spans, max)


def shares(spans: Sequence[Span]) -> dict[str, float]:
    times = self_times(spans)
    return {name: time / sum(times.values()) for name, time in times.items()}


def in_list_order(spans: Sequence[Span]) -> dict[str, float]:
    """The parent is looked for among earlier spans of the list alone."""
    own = [span.duration for span in spans]
    for index, span in enumerate(spans):
        around = [
            other
            for other in range(index)
            if spans[other].thread == span.thread
            and spans[other].begin <= span.begin
            and span.end <= spans[other].end
        ]
        if around:
            own[min(around, key=lambda other: spans[other].duration)] -= span.duration
    return _sums([(span.name, duration) for span, duration in zip(spans, own, strict=True)])


def within_other_names(spans: Sequence[Span]) -> dict[str, float]:
    """A span within one of the same name is not subtracted from it."""
    own = [span.duration for span in spans]
    for span, parent in zip(spans, parents(spans), strict=True):
        if parent is not None and spans[parent].name != span.name:
            own[parent] -= span.duration
    return _sums([(span.name, duration) for span, duration in zip(spans, own, strict=True)])


def time_of_children(spans: Sequence[Span]) -> dict[str, float]:
    total, own = total_times(spans), self_times(spans)
    return {name: total[name] - own[name] for name in total}


# those that differ from the right function in few traces first: there they agree with others
MISTAKES: list[tuple[Callable[[Sequence[Span]], dict[str, float]], str]] = [
    (
        in_list_order,
        "You rely on the order of the list. A trace may list a span before the span around it: sort by `begin` first.",
    ),
    (
        within_other_names,
        "A span within another of the same name is not subtracted, so its time counts twice.",
    ),
    (total_times, "Those are total times. Subtract from each span the time of the spans directly within it."),
    (
        descendants_subtracted,
        "You subtract a span from every span around it. It is part of the innermost one, which is itself subtracted "
        "from the next: subtract each span once, from the innermost span around it.",
    ),
    (
        without_threads,
        "You subtract a span of one thread from a span of another. They only run at the same time; spans nest on "
        "one thread.",
    ),
    (
        leaves_alone,
        "You count only spans with nothing within them. A span around others has time of its own.",
    ),
    (last_call, "You keep one call of each name. Add up the self times of all calls of a name."),
    (mean_of_calls, "That is the mean of the calls. Add them up."),
    (longest_call, "That is the longest call of each name. Add up all calls."),
    (shares, "Those are shares of the whole. Return microseconds."),
    (time_of_children, "That is the time of the spans within. Self time is what is left without them."),
]


def require_self_times(function: SelfTimes) -> None:
    """Raise Mistake unless the function is right on all TRACES."""
    outputs = {what: _times(function, what, spans) for what, spans in TRACES.items()}
    wrong = [what for what, spans in TRACES.items() if not _equal(outputs[what], self_times(spans))]
    if not wrong:
        return
    for mistake, hint in MISTAKES:
        if all(_equal(outputs[what], mistake(TRACES[what])) for what in wrong):
            raise Mistake(hint)
    raise _difference(wrong[0], outputs[wrong[0]])


def _times(function: SelfTimes, what: str, spans: Sequence[Span]) -> dict[Any, float]:
    output = require_mapping(
        function(list(spans)),
        "`self_times` must return a dictionary: the name of a span → its self time in microseconds.",
    )
    names = {span.name for span in spans}
    missing = sorted(names - set(output))
    require(not missing, f"For {what}, your result has no {', '.join(missing)}. Every name has a self time.")
    unknown = [shown(name) for name in output if name not in names]
    require(not unknown, f"For {what}, your result has {', '.join(unknown)}; the trace has no such name.")
    return {
        name: require_number(time, subject=f"For {what}, the time of {name!r}")
        for name, time in output.items()
    }


def _equal(times: Mapping[Any, float], expected: Mapping[str, float]) -> bool:
    return times.keys() == expected.keys() and all(
        close(times[name], expected[name], TOLERANCE) for name in expected
    )


def _difference(what: str, times: Mapping[Any, float]) -> Mistake:
    expected = self_times(TRACES[what])
    name = next(name for name in expected if not close(times[name], expected[name]))
    hint = "Sort by `begin`, keep a stack of the open spans, and subtract each span from the one on top."
    if name and close(times[name], -expected[name]):
        return Mistake(f"For {what}, the time of {name!r} has the wrong sign.", hint)
    return Mistake(
        f"For {what}, {name!r} has {expected[name]:g} µs of its own; you have {times[name]:g}.", hint
    )


def _grouped(spans: Sequence[Span], reduce: Callable[[list[float]], float]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for name, duration in self_durations(spans):
        groups.setdefault(name, []).append(duration)
    return {name: float(reduce(durations)) for name, durations in groups.items()}


def _sums(durations: Sequence[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, duration in durations:
        sums[name] = sums.get(name, 0.0) + duration
    return sums
