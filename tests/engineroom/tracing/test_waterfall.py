"""Rows of the waterfall: each span once, below its parent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engineroom.tracing.span import Span
from engineroom.tracing.waterfall import waterfall


def span(index: int, parent: int | str, start: int, duration: int) -> Span:
    times = (start, start + duration)
    return Span("service", f"span {index}", "1" * 32, str(index), str(parent), *times, {}, (), "UNSET", "")


FOREST = st.lists(
    st.tuples(st.integers(-2, 11), st.integers(0, 10**12), st.integers(0, 10**12)), max_size=12
).map(lambda entries: [span(index, *entry) for index, entry in enumerate(entries)])


@given(FOREST, st.randoms())
def test_each_span_has_one_row(spans: list[Span], random) -> None:
    """Whatever the parents are: absent ones, circles, or a span that is its own parent."""
    shuffled = random.sample(spans, len(spans))
    rows = waterfall(shuffled)
    assert sorted(row.span.span_id for row in rows) == sorted(span.span_id for span in spans)
    begin = min((span.start for span in spans), default=0)
    for row in rows:
        assert row.start == (row.span.start - begin) / 1e9 and row.start >= 0
        assert row.duration == (row.span.end - row.span.start) / 1e9 and row.depth >= 0


@given(FOREST)
def test_a_row_is_below_its_parent_or_a_root(spans: list[Span]) -> None:
    rows = waterfall(spans)
    path: list[Span] = []
    for row in rows:
        assert row.depth <= len(path)
        path = [*path[: row.depth], row.span]
        if row.depth:
            assert path[row.depth - 1].span_id == row.span.parent_id


@given(FOREST)
def test_siblings_are_in_the_order_of_their_start(spans: list[Span]) -> None:
    without_circles = [span for span in spans if int(span.parent_id) < int(span.span_id)]
    rows = waterfall(without_circles)
    ids = {span.span_id for span in without_circles}
    for parent_id in {row.span.parent_id for row in rows}:
        starts = [row.start for row in rows if row.span.parent_id == parent_id]
        assert parent_id not in ids or starts == sorted(starts)
    roots = [row for row in rows if row.span.parent_id not in ids]
    assert all(row.depth == 0 for row in roots) and [row.start for row in roots] == sorted(
        row.start for row in roots
    )
