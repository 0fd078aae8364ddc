"""The spans of one trace as rows of a waterfall diagram."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from engineroom.tracing.span import Span


@dataclass(frozen=True)
class Row:
    """One span: `start` is in seconds after the first span's start, `duration` in seconds, `depth` 0 for a root."""

    service: str
    name: str
    start: float
    duration: float
    depth: int
    span: Span


def waterfall(spans: Sequence[Span]) -> list[Row]:
    """One row for each span: parents before their children, and siblings in the order of their start.

    A span whose parent is not in the trace is a root, such as the first server's span when the client sends no spans.
    """
    if not spans:
        return []
    by_start = sorted(spans, key=lambda span: (span.start, -span.end))
    ids = {span.span_id for span in spans}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in by_start:
        children[span.parent_id].append(span)
    roots = [span for span in by_start if span.parent_id not in ids]
    rows: list[Row] = []
    visited: set[str] = set()
    stack = [(span, 0) for span in reversed([*roots, *by_start])]  # all spans, as parents might form a circle
    while stack:
        span, depth = stack.pop()
        if span.span_id in visited:
            continue
        visited.add(span.span_id)
        start, duration = (span.start - by_start[0].start) / 1e9, (span.end - span.start) / 1e9
        rows.append(Row(span.service, span.name, start, duration, depth, span))
        stack += [(child, depth + 1) for child in reversed(children[span.span_id])]
    return rows
