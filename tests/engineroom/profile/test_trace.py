"""Reading traces: every moment is counted once, in any order of the file; and files that are no traces are refused."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.profile.table import TraceRow, covered_us, time_events, trace_table
from engineroom.profile.trace import CATEGORIES, Event, Trace, TraceError, read_trace
from tests.engineroom.profile.chrome import EVENTS, as_chrome, in_order, write

SAME_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
HOST = ("1", "1")
STREAM = ("0", "7")


def covered_ns(events: list[Event]) -> int:
    """Nanoseconds in which an event of the thread runs, one tick of ten after another."""
    return 10 * len({tick for event in events for tick in range(event.begin_ns // 10, event.end_ns // 10)})


@given(EVENTS)
def test_self_times_add_up_to_the_covered_time_of_each_thread(events: list[Event]) -> None:
    timed = time_events(in_order(events))
    for thread in ("1", "2"):
        own = [event for event in events if event.thread[1] == thread]
        self_times = [item.self_ns for item in timed if item.event.thread[1] == thread]
        assert sum(self_times) == covered_ns(own)
        assert all(time >= 0 for time in self_times)
    assert all(item.self_ns <= item.event.duration_ns for item in timed)


@given(EVENTS)
def test_gaps_and_covered_time_fill_a_thread_from_its_first_event_to_its_last(events: list[Event]) -> None:
    timed = time_events(in_order(events))
    for thread, is_range in ((thread, is_range) for thread in ("1", "2") for is_range in (True, False)):
        own = [event for event in events if event.thread[1] == thread and event.is_range == is_range]
        gaps = [item.gap_before_ns for item in timed if item.event in own]
        assert all(gap >= 0 for gap in gaps)
        if own:
            extent = max(event.end_ns for event in own) - min(event.begin_ns for event in own)
            assert sum(gaps) + covered_ns(own) == extent


@SAME_FILE
@given(EVENTS, st.randoms(use_true_random=False), st.sampled_from(["trace.json", "trace.json.gz"]))
def test_the_order_of_the_file_does_not_matter(
    tmp_path: Path, events: list[Event], order: random.Random, name: str
) -> None:
    expected = trace_table(read_trace(write(tmp_path / name, events)))
    order.shuffle(events)
    trace = read_trace(write(tmp_path / name, events))
    assert trace_table(trace) == expected
    assert Counter(trace.events) == Counter(events)
    assert len({(event.name, event.category) for event in events}) == len(expected)
    assert all(row.calls > 0 and row.self_us <= row.total_us >= row.longest_us for row in expected)
    assert sum(row.self_us for row in expected) == pytest.approx(covered_us(trace.events))


def test_a_host_s_operators_nest_and_a_range_has_the_rest() -> None:
    events = [
        Event("step", "user_annotation", HOST, 0, 100_000),
        Event("aten::linear", "cpu_op", HOST, 10_000, 60_000),
        Event("aten::mm", "cpu_op", HOST, 20_000, 50_000),
        Event("aten::mm", "cpu_op", HOST, 75_000, 80_000),
        Event("step", "user_annotation", HOST, 130_000, 140_000),
    ]
    assert trace_table(Trace(tuple(in_order(events)), {})) == [
        TraceRow("step", "range", 2, 110, 55, 100, 30),
        TraceRow("aten::mm", "operator", 2, 35, 35, 30, 15),
        TraceRow("aten::linear", "operator", 1, 50, 20, 50, 0),
    ]


def test_a_call_inside_a_call_of_the_same_name_counts_once() -> None:
    events = [
        Event("aten::sum", "cpu_op", HOST, 0, 10_000),
        Event("aten::sum", "cpu_op", HOST, 1_000, 9_000),
        Event("aten::fill_", "cpu_op", HOST, 2_000, 3_000),
        Event("aten::sum", "cpu_op", HOST, 10_000, 12_000),
    ]
    assert trace_table(Trace(tuple(in_order(events)), {})) == [
        TraceRow("aten::sum", "operator", 2, 12, 11, 10, 0),
        TraceRow("aten::fill_", "operator", 1, 1, 1, 1, 0),
    ]


def test_events_of_equal_times_nest_in_the_same_way_in_any_order_of_the_file(tmp_path: Path) -> None:
    """A range is outside the operator; of two operators, the first in the alphabet is."""
    bounds = (HOST, 1_000, 2_000)
    kinds = [
        ("zoom", "user_annotation"),
        ("aten::add", "cpu_op"),
        ("aten::mul", "cpu_op"),
        ("aten::mul", "cuda_driver"),
    ]
    for order in permutations(Event(name, cat, *bounds) for name, cat in kinds):
        rows = trace_table(read_trace(write(tmp_path / "trace.json", order)))
        assert [(row.name, row.category, row.self_us) for row in rows] == [
            ("aten::mul", "runtime", 1), ("aten::add", "operator", 0), ("aten::mul", "operator", 0),
            ("zoom", "range", 0),
        ]  # fmt: skip


def test_a_gpu_s_streams_are_threads_and_its_ranges_are_not_the_host_s() -> None:
    events = [
        Event("sample", "user_annotation", HOST, 0, 5_000),
        Event("cudaLaunchKernel", "cuda_runtime", HOST, 1_000, 2_000),
        Event("sample", "gpu_user_annotation", STREAM, 10_000, 40_000),
        Event("gemm", "kernel", STREAM, 10_000, 20_000),
        Event("softmax", "kernel", STREAM, 25_000, 40_000),
        Event("Memcpy DtoH", "gpu_memcpy", ("0", "8"), 12_000, 13_000),
        Event("gemm", "kernel", STREAM, 50_000, 60_000),
    ]
    trace = Trace(tuple(in_order(events)), {})
    assert set(trace_table(trace)) == {
        TraceRow("sample", "range", 1, 5, 4, 5, 0),
        TraceRow("cudaLaunchKernel", "runtime", 1, 1, 1, 1, 0),
        TraceRow("sample", "device range", 1, 30, 5, 30, 0),
        TraceRow("gemm", "kernel", 2, 20, 20, 10, 10),
        TraceRow("softmax", "kernel", 1, 15, 15, 15, 5),
        TraceRow("Memcpy DtoH", "copy", 1, 1, 1, 1, 0),
    }
    inside = {(row.name, row.category, row.calls) for row in trace_table(trace, "sample")}
    assert inside == {
        ("sample", "range", 1), ("cudaLaunchKernel", "runtime", 1),
        ("sample", "device range", 1), ("gemm", "kernel", 1), ("softmax", "kernel", 1),
    }  # fmt: skip
    with pytest.raises(TraceError, match=r"no range 'decode'\. It has: sample\."):
        trace_table(trace, "decode")


def test_a_trace_of_torch_profiler(tmp_path: Path) -> None:
    """PyTorch's own table has the same operators, calls and order of nesting."""
    matrix = torch.ones(64, 64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            with torch.profiler.record_function("step"):
                torch.nn.functional.linear(matrix, matrix).sum()
    profiler.export_chrome_trace(str(tmp_path / "trace.json.gz"))
    trace = read_trace(tmp_path / "trace.json.gz")
    rows = {row.name: row for row in trace_table(trace)}
    for event in profiler.key_averages():
        row = rows.pop(event.key)
        assert row.calls == event.count
        assert row.total_us == pytest.approx(event.cpu_time_total, abs=0.01 * row.calls)
        assert row.self_us == pytest.approx(event.self_cpu_time_total, abs=0.1 * row.calls)
        assert row.category == ("range" if row.name == "step" else "operator")
    assert not rows
    assert trace.thread_names[trace.events[0].thread].startswith("thread ")
    assert trace.provenance is None


GOOD = json.dumps({"traceEvents": [as_chrome(Event("a", "cpu_op", ("1", "1"), 0, 10))]}).encode()
EVENT = as_chrome(Event("a", "cpu_op", ("1", "1"), 0, 10))


def changed(**fields: object) -> bytes:
    return json.dumps({"traceEvents": [EVENT | fields]}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (GOOD[:-5], "not all of it"),
        (gzip.compress(GOOD)[:-12], "truncated or damaged"),
        (gzip.compress(GOOD)[:20], "truncated or damaged"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 30, "truncated or damaged"),
        (gzip.compress(GOOD[:-5]), "not all of it"),
        (b"\x1f\x8b garbage", "cannot be read|truncated"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"3", "no list 'traceEvents'"),
        (b"{}", "no list 'traceEvents'"),
        (b'{"traceEvents": {}}', "no list 'traceEvents'"),
        (b"[]", "nothing ran"),
        (b'{"traceEvents": [1, null, "x", {}]}', "nothing ran"),
        (changed(cat="python_function"), "nothing ran"),
        (changed(cat=["cpu_op"]), "nothing ran"),
        (changed(ph="i"), "nothing ran"),
        (changed(ts=None), "no times"),
        (changed(ts="1"), "no times"),
        (changed(dur=-1), "no times"),
        (changed(dur=float("nan")), "no times"),
        (changed(ts=float("inf")), "no times"),
        (changed(dur=True), "no times"),
        (changed(name=7), "no name"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.json.gz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message):
        read_trace(path)


@SAME_FILE
@given(st.integers(0, len(gzip.compress(GOOD, mtime=0)) - 1), st.booleans())
def test_no_truncation_escapes_as_another_error(tmp_path: Path, length: int, zipped: bool) -> None:
    path = tmp_path / "trace.json"
    content = gzip.compress(GOOD, mtime=0) if zipped else GOOD
    path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(TraceError):
        read_trace(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path)
    with pytest.raises(TraceError, match="no file"):
        read_trace(tmp_path / "trace.json")


def test_a_bare_list_of_events_is_a_trace_and_unknown_events_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps([EVENT, {"ph": "M"}, EVENT | {"cat": "python_function"}, 5]))
    assert [event.name for event in read_trace(path).events] == ["a"]
    assert set(CATEGORIES) >= {"cpu_op", "kernel", "user_annotation"}
