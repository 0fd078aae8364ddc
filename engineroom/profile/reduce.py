"""Traces as files: written with their provenance, and reduced to a few steps, small enough to keep as a record.

Both are Chrome traces that Perfetto and `read_trace` open.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engineroom.kit.files import make_folder, write_atomic
from engineroom.kit.machine import machine
from engineroom.kit.record import commit
from engineroom.profile.trace import (
    NS_PER_US,
    Event,
    Trace,
    TraceError,
    read_document,
    read_trace,
)

STEP = r"step|execute_.*"  # the range around a step: our engine's, and vLLM's worker's
MAX_RECORD_BYTES = 50_000
PRIVATE = ("host_name", "traceName")


def provenance(command: str, **facts: object) -> dict[str, Any]:
    """What a trace says of its origin: the command that records it again, machine, versions, time and commit.

    `facts` are added as they are.
    """
    card = machine()
    return {
        "command": command,
        "machine": card.short(),
        "versions": card.versions,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **facts,
    }


def write_trace(document: Mapping[str, Any], path: Path) -> Path:
    """Write a trace, gzipped, without the names of host and temporary file.

    Raises FolderError and FileError.
    """
    public = {key: value for key, value in document.items() if key not in PRIVATE}
    return _write(path, _compressed(public))


def add_provenance(source: Path, path: Path, origin: Mapping[str, Any]) -> Path:
    """Copy the trace `source` to `path` with its provenance. Raises TraceError for a trace without events."""
    read_trace(source)
    return write_trace(read_document(source) | {"provenance": dict(origin)}, path)


def reduce_trace(
    path: str | Path,
    out: str | Path,
    *,
    first: int = 0,
    steps: int = 4,
    step: str = STEP,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Keep `steps` steps from step `first` on: names, categories, threads and times of all that began in them.

    A step lasts until the next one begins. `step` is a regular expression for the range at its beginning. Times begin
    at 0. Fewer steps are kept when the file
    would exceed MAX_RECORD_BYTES. `origin` is the provenance of a trace that has none. Raises TraceError when there is
    no such step, when one step alone is too large, and when the trace has no provenance.
    """
    trace = read_trace(path)
    origin = trace.provenance or origin
    if not origin:
        raise TraceError(
            f"{path} does not say where it was recorded. Record it with `engineroom profile engine` or `engineroom "
            f"profile vllm`; in Python, `origin` adds the provenance."
        )
    begins = _step_begins(trace, step, path)
    end = 1 + max(event.end_ns for event in trace.events)
    bounds = [*begins, end][first : first + steps + 1]
    if len(bounds) < 2:
        raise TraceError(
            f"{path} has {len(begins)} steps, and none from step {first} on. Choose a smaller `first`."
        )
    for count in range(len(bounds) - 1, 0, -1):
        facts = {**origin, "steps": count, "first_step": first}
        data = _compressed(_reduced(trace, bounds[0], bounds[count], facts))
        if len(data) <= MAX_RECORD_BYTES:
            return _write(Path(out), data)
    raise TraceError(
        f"{path}: one step is more than {MAX_RECORD_BYTES} bytes, gzipped. Record a smaller batch, or without stacks."
    )


def _step_begins(trace: Trace, pattern: str, path: str | Path) -> list[int]:
    """When each step begins, in nanoseconds; of nested ranges, the outer counts."""
    steps: list[Event] = []
    for event in trace.events:
        is_step = event.category == "range" and re.fullmatch(pattern, event.name)
        if is_step and (not steps or event.begin_ns >= steps[-1].end_ns):
            steps.append(event)
    if not steps:
        names = ", ".join(sorted({event.name for event in trace.events if event.is_range})) or "none"
        raise TraceError(f"{path} has no range that matches {pattern!r}. Its ranges: {names}.")
    return [event.begin_ns for event in steps]


def _reduced(trace: Trace, begin_ns: int, end_ns: int, origin: Mapping[str, Any]) -> dict[str, Any]:
    events = [event for event in trace.events if begin_ns <= event.begin_ns < end_ns]
    threads = dict.fromkeys(event.thread for event in events)
    names = [
        {"ph": "M", "name": "thread_name", **_ids(thread), "args": {"name": trace.thread_names[thread]}}
        for thread in threads
        if thread in trace.thread_names
    ]
    chrome = [_chrome(event, begin_ns) for event in events]
    return {"provenance": dict(origin), "displayTimeUnit": "ms", "traceEvents": names + chrome}


def _chrome(event: Event, zero_ns: int) -> dict[str, Any]:
    begin, duration = (event.begin_ns - zero_ns) / NS_PER_US, event.duration_ns / NS_PER_US
    return {
        "ph": "X",
        "cat": event.cat,
        "name": event.name,
        **_ids(event.thread),
        "ts": begin,
        "dur": duration,
    }


def _ids(thread: tuple[str, str]) -> dict[str, int | str]:
    """Numbers as numbers: Perfetto takes a process id in quotes for another process."""
    pid, tid = (int(part) if part.isdecimal() else part for part in thread)
    return {"pid": pid, "tid": tid}


def _write(path: Path, data: bytes) -> Path:
    make_folder(path.parent)
    write_atomic(path, data)
    return path


def _compressed(document: Mapping[str, Any]) -> bytes:
    """The same bytes for the same document at any time."""
    return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)
