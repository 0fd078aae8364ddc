"""Chrome traces for the tests: written by hand, and by torch.profiler."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from engineroom.profile.trace import CATEGORIES, Event, nesting_order

EVENTS = st.lists(
    st.builds(
        lambda name, cat, thread, begin, duration: Event(
            name, cat, ("7", thread), begin * 10, (begin + duration) * 10
        ),
        st.sampled_from("abc"),
        st.sampled_from(sorted(CATEGORIES)),
        st.sampled_from(["1", "2"]),
        st.integers(0, 60),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=20,
)


def in_order(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=nesting_order)


def as_chrome(event: Event) -> dict[str, Any]:
    return {
        "ph": "X", "name": event.name, "cat": event.cat, "pid": int(event.thread[0]), "tid": int(event.thread[1]),
        "ts": event.begin_ns / 1000, "dur": event.duration_ns / 1000, "args": {"External id": 1},
    }  # fmt: skip


def write(path: Path, events: Sequence[Event], **document: Any) -> Path:
    content = json.dumps({"traceEvents": [as_chrome(event) for event in events], **document}).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_step(path: Path) -> Path:
    """A trace of one step of an engine, with its provenance."""
    thread = ("1", "1")
    events = [Event("step", "user_annotation", thread, 0, 9000), Event("aten::mm", "cpu_op", thread, 10, 80)]
    return write(path, events, provenance={"command": "engineroom profile engine"})
