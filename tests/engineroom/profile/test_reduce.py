"""A record of a trace: a few steps, from zero, with its origin, the same table, and below 50 kB."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.profile import reduce
from engineroom.profile.reduce import add_provenance, provenance, reduce_trace
from engineroom.profile.table import trace_table
from engineroom.profile.trace import Event, TraceError, read_trace
from tests.engineroom.profile.chrome import EVENTS, write

HOST, STREAM = ("12", "12"), ("0", "7")
ORIGIN = {"command": "engineroom profile engine", "versions": {"torch": "2.13"}}
STEP_NS = 1_000_000


def step(index: int, name: str = "step") -> list[Event]:
    """A step of 0.9 ms each 1 ms, its operator, a part after it, and a kernel that ends in the next step."""
    begin = 5 * 10**15 + index * STEP_NS
    return [
        Event(name, "user_annotation", HOST, begin, begin + 900_000),
        Event("aten::mm", "cpu_op", HOST, begin + 1_000, begin + 2_000),
        Event("sample", "user_annotation", HOST, begin + 920_000, begin + 930_000),
        Event("gemm", "kernel", STREAM, begin + 950_000, begin + 1_050_000),
    ]


def steps(count: int, name: str = "step") -> list[Event]:
    return [event for index in range(count) for event in step(index, name)]


def content(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize(("first", "count", "expected"), [(0, 2, 2), (1, 3, 3), (3, 9, 2), (4, 1, 1)])
@pytest.mark.parametrize("name", ["step", "execute_context_0(0)_generation_4(4)"])
def test_it_keeps_whole_steps_and_their_times(
    tmp_path: Path, first: int, count: int, expected: int, name: str
) -> None:
    trace = write(tmp_path / "trace.json.gz", steps(5, name), provenance=ORIGIN, host_name="a-host")
    reduced = reduce_trace(trace, tmp_path / "new" / "reduced.json.gz", first=first, steps=count)
    same = write(
        tmp_path / "same.json", [event for i in range(first, first + expected) for event in step(i, name)]
    )
    rows = trace_table(read_trace(reduced))
    assert rows == trace_table(read_trace(same))
    assert {(row.name, row.calls) for row in rows} == {
        (n, expected) for n in (name, "aten::mm", "sample", "gemm")
    }
    assert content(reduced)["provenance"] == ORIGIN | {"steps": expected, "first_step": first}
    assert "host" not in str(content(reduced)) and "External id" not in str(content(reduced))
    assert min(event.begin_ns for event in read_trace(reduced).events) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.randoms(use_true_random=False))
def test_all_steps_of_a_trace_have_its_table_and_reducing_again_changes_nothing(
    tmp_path: Path, events: list[Event], order: random.Random
) -> None:
    whole = [Event("step", "user_annotation", ("7", "1"), 0, 10_000), *events]
    order.shuffle(whole)
    trace = write(tmp_path / "trace.json", whole, provenance=ORIGIN)
    reduced = reduce_trace(trace, tmp_path / "reduced.json.gz")
    assert trace_table(read_trace(reduced)) == trace_table(read_trace(trace))
    again = reduce_trace(reduced, tmp_path / "again.json.gz")
    assert again.read_bytes() == reduced.read_bytes()
    assert reduced.read_bytes()[4:8] == bytes(4), "a gzip file's time of writing (RFC 1952)"


def test_a_record_is_small_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = write(tmp_path / "trace.json.gz", steps(50), provenance=ORIGIN)
    sizes = [reduce_trace(trace, tmp_path / f"{n}.json.gz", steps=n).stat().st_size for n in (1, 10, 50)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1] < sizes[2]
    monkeypatch.setattr(reduce, "MAX_RECORD_BYTES", sizes[1])
    reduced = reduce_trace(trace, tmp_path / "reduced.json.gz", steps=50)
    assert reduced.stat().st_size <= sizes[1]
    assert 10 <= content(reduced)["provenance"]["steps"] < 50
    monkeypatch.setattr(reduce, "MAX_RECORD_BYTES", sizes[0] - 1)
    with pytest.raises(TraceError, match="one step is more than"):
        reduce_trace(trace, tmp_path / "none.json.gz")
    assert not (tmp_path / "none.json.gz").exists()


def test_a_trace_without_origin_needs_one(tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.json.gz", steps(2))
    with pytest.raises(TraceError, match="does not say where it was recorded"):
        reduce_trace(trace, tmp_path / "reduced.json.gz")
    reduced = reduce_trace(trace, tmp_path / "reduced.json.gz", origin=ORIGIN)
    assert content(reduced)["provenance"]["command"] == ORIGIN["command"]
    again = reduce_trace(reduced, tmp_path / "again.json.gz", origin={"command": "another"})
    assert content(again)["provenance"]["command"] == ORIGIN["command"], "the trace's own provenance wins"


@pytest.mark.parametrize(
    ("first", "pattern", "message"),
    [(2, "step", "2 steps, and none from step 2"), (0, "decode", "Its ranges: sample, step")],
)
def test_steps_that_are_absent_are_refused(tmp_path: Path, first: int, pattern: str, message: str) -> None:
    trace = write(tmp_path / "trace.json.gz", steps(2), provenance=ORIGIN)
    with pytest.raises(TraceError, match=message):
        reduce_trace(trace, tmp_path / "reduced.json.gz", first=first, step=pattern)


def test_nested_steps_count_once(tmp_path: Path) -> None:
    inner = [Event("step", "user_annotation", HOST, e.begin_ns + 10, e.end_ns - 10) for e in steps(3)[::4]]
    trace = write(tmp_path / "trace.json.gz", steps(3) + inner, provenance=ORIGIN)
    reduced = reduce_trace(trace, tmp_path / "reduced.json.gz", steps=2)
    assert [event.name for event in read_trace(reduced).events].count("gemm") == 2


def test_provenance_is_of_this_machine_and_names_no_host(tmp_path: Path) -> None:
    origin = provenance("engineroom profile engine out", engine="aot")
    assert origin["machine"]["cores"] and origin["versions"]["torch"] and origin["started"]
    source = write(
        tmp_path / "trace.json", steps(1), host_name="a-host", traceName="/tmp/x", deviceProperties=[]
    )
    trace = add_provenance(source, tmp_path / "folder" / "trace.json.gz", origin)
    assert read_trace(trace).provenance == origin
    assert content(trace).keys() == {"traceEvents", "provenance", "deviceProperties"}


def test_an_empty_trace_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "trace.json"
    source.write_text('{"traceEvents": []}')
    with pytest.raises(TraceError, match="nothing ran"):
        add_provenance(source, tmp_path / "kept.json.gz", ORIGIN)
    assert not (tmp_path / "kept.json.gz").exists()
