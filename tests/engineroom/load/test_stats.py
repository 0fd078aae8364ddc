"""Latency arithmetic: definitions, and properties that hold for every run."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom import load
from engineroom.load import Trace

gaps = st.lists(st.floats(1e-4, 10), min_size=1, max_size=20)


@st.composite
def runs(draw: st.DrawFn) -> list[Trace]:
    traces = []
    for _ in range(draw(st.integers(1, 12))):
        sent = draw(st.floats(0, 100))
        traces.append(Trace(sent, [sent + offset for offset in accumulate(draw(gaps))]))
    return traces


@given(runs())
def test_the_parts_add_up(traces: list[Trace]) -> None:
    for trace in traces:
        assert load.e2e(trace) == pytest.approx(load.ttft(trace) + sum(load.itl(trace)))
        if len(trace.arrivals) > 1:
            assert load.tpot(trace) * (len(trace.arrivals) - 1) == pytest.approx(sum(load.itl(trace)))
        else:
            with pytest.raises(load.LoadError, match="one token has no TPOT"):
                load.tpot(trace)


@given(runs(), st.floats(0.01, 20), st.floats(0.01, 20))
def test_goodput_is_never_more_than_the_rate_of_requests(
    traces: list[Trace], ttft: float, tpot: float
) -> None:
    slo = load.SLO(ttft, tpot)
    assert 0 <= load.goodput(traces, slo) <= len(traces) / load.duration(traces) + 1e-9
    looser = load.SLO(2 * ttft, 2 * tpot)
    assert load.goodput(traces, slo) <= load.goodput(traces, looser)


@given(runs())
def test_littles_law_holds_for_every_run(traces: list[Trace]) -> None:
    """Rate times mean latency equals the time average of requests in flight, integrated from the raw times."""
    seconds = load.duration(traces)
    law = len(traces) / seconds * (sum(map(load.e2e, traces)) / len(traces))
    starts = [(trace.sent, 1) for trace in traces]
    ends = [(trace.arrivals[-1], -1) for trace in traces]
    events = sorted(starts + ends)
    counts = accumulate(change for _, change in events)  # requests in flight after each event
    seconds_between = (end - start for (start, _), (end, _) in pairwise(events))
    area = sum(count * gap for count, gap in zip(counts, seconds_between, strict=False))
    assert law == pytest.approx(area / seconds)


def test_failed_requests_count_as_missed() -> None:
    complete, broken, empty = Trace(0.0, [0.1, 0.2]), Trace(0.0, [0.1], error="cut off"), Trace(0.0)
    traces = [complete, broken, empty]
    assert load.goodput(traces, load.SLO(1, 1)) == pytest.approx(1 / 0.2)
    assert load.summary(traces)["failed"] == 2
    with pytest.raises(load.LoadError, match="no tokens"):
        load.ttft(empty)
    with pytest.raises(load.LoadError, match="No request got an answer"):
        load.duration([empty])


def test_answers_of_one_token_do_not_count_in_tpot() -> None:
    single, longer = Trace(0.0, [0.1]), Trace(0.0, [0.1, 0.2, 0.3])
    summary = load.summary([single] * 6 + [longer] * 4)
    assert summary["tpot_p50"] == summary["tpot_p99"] == pytest.approx(0.1)
    assert load.tpots([single, longer]) == [pytest.approx(0.1)]
    assert load.meets(single, load.SLO(ttft=0.2, tpot=0.0))
    assert not load.meets(longer, load.SLO(ttft=0.2, tpot=0.0))
    summary = load.summary([single] * 3)
    assert math.isnan(summary["tpot_p50"])
    assert math.isnan(summary["itl_p99"])
    assert summary["tokens_per_s"] == pytest.approx(3 / 0.1)


def test_tokens_of_one_chunk_have_no_gap_between_them() -> None:
    trace = Trace(0.0, [0.1, 0.1, 0.1, 0.3])
    assert load.itl(trace) == [pytest.approx(0.2)]
    assert load.tpot(trace) == pytest.approx(0.2 / 3)


def test_an_unknown_number_of_tokens_is_not_guessed() -> None:
    chunks = Trace(0.0, [0.1, 0.2], per_chunk=True, finished=0.4)
    assert chunks.output_tokens is None
    assert (load.ttft(chunks), load.e2e(chunks), load.itl(chunks)) == (0.1, pytest.approx(0.4), [0.1])
    for function in (load.tpot, lambda trace: load.throughput([trace]), lambda trace: load.tpots([trace])):
        with pytest.raises(load.LoadError, match="unknown"):
            function(chunks)
    with pytest.raises(load.LoadError, match="unknown"):
        load.goodput([chunks], load.SLO(1, 1))
    summary = load.summary([chunks, Trace(0.0, [0.1, 0.2])])
    assert {name for name, value in summary.items() if math.isnan(value)} == {
        "tokens_per_s",
        "tpot_p50",
        "tpot_p99",
    }
    counted = Trace(0.0, [0.1, 0.2], per_chunk=True, finished=0.4, completion_tokens=4)
    assert load.tpot(counted) == pytest.approx(0.1)
    assert load.throughput([counted]) == pytest.approx(4 / 0.4)


def test_the_tokens_of_failed_requests_are_not_throughput() -> None:
    traces = [Trace(0.0, [0.1, 0.2]), Trace(0.0, [0.1] * 50, error="cut off")]
    assert load.throughput(traces) == pytest.approx(2 / 0.2)
    with pytest.raises(load.LoadError, match="The first error: cut off"):
        load.duration([Trace(0.0), Trace(0.0, error="cut off")])


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(load.LoadError, match="empty list"):
        load.percentile([], 50)
