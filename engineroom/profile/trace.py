"""Read a Chrome trace of torch.profiler, our engine's or vLLM's, from a CPU or a GPU, plain or gzipped.

A trace is a list of events with a name, a thread and two times. A thread of a host nests them: an operator calls other
operators. A GPU's stream is a thread, too, whose events are kernels and copies. table.py sums the events up.

Format: "Trace Event Format" (Chromium), complete events ("ph": "X"), as PyTorch's library Kineto writes them.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engineroom.kit.errors import UserError

Category = Literal["operator", "runtime", "kernel", "copy", "range", "device range"]
CATEGORIES: Mapping[str, Category] = {  # by Kineto's "cat"; what is not listed here is not read
    "cpu_op": "operator",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
    "kernel": "kernel",
    "gpu_memcpy": "copy",
    "gpu_memset": "copy",
    "user_annotation": "range",
    "gpu_user_annotation": "device range",
}
RANGES = ("range", "device range")
GZIP_MAGIC = b"\x1f\x8b"
NS_PER_US = 1000
ADVICE = "Record it again, and stop the profiler before the program ends."


class TraceError(UserError, ValueError):
    """A file that is no trace, or a trace without what was looked for."""


class Event(NamedTuple):
    """One call of an operator or a CUDA function, one kernel or copy, or one named range.

    `cat` is Kineto's name for `category`. `thread` is (process id, thread id) on a host, (device, stream) on a GPU.
    Times are in nanoseconds of a clock whose zero means nothing.
    """

    name: str
    cat: str
    thread: tuple[str, str]
    begin_ns: int
    end_ns: int

    @property
    def category(self) -> Category:
        return CATEGORIES[self.cat]

    @property
    def is_range(self) -> bool:
        return self.category in RANGES

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.begin_ns


@dataclass(frozen=True)
class Trace:
    """The events of a trace, by begin, an outer event before those inside it.

    `thread_names` has what the profiler calls each thread. `provenance` says what was recorded, where and by which
    command; it is None for a trace of other programs.
    """

    events: tuple[Event, ...]
    thread_names: Mapping[tuple[str, str], str]
    provenance: Mapping[str, Any] | None = None

    def ranges(self, name: str) -> list[Event]:
        """The ranges called `name`, on hosts and GPUs. Raises TraceError when there is none."""
        every_range = [event for event in self.events if event.is_range]
        ranges = [event for event in every_range if event.name == name]
        if not ranges:
            names = ", ".join(sorted({event.name for event in every_range})) or "none"
            raise TraceError(f"The trace has no range {name!r}. It has: {names}.")
        return ranges


def read_trace(path: str | Path) -> Trace:
    """Read a trace file. Raises TraceError for a file that is not a whole trace, or that has no known event."""
    document = read_document(path)
    raw = document["traceEvents"]
    complete = [event for event in raw if isinstance(event, dict) and event.get("ph") == "X"]
    events = [_event(event, path) for event in complete if str(event.get("cat")) in CATEGORIES]
    if not events:
        raise TraceError(
            f"{path} has no operators, kernels or ranges: nothing ran while the profiler did. Profile a step of an "
            f"engine."
        )
    provenance = document.get("provenance")
    return Trace(
        tuple(sorted(events, key=nesting_order)),
        dict(_thread_names(raw)),
        provenance if isinstance(provenance, dict) else None,
    )


def read_document(path: str | Path) -> dict[str, Any]:
    """The JSON of a trace file, whose "traceEvents" is a list. Raises TraceError."""
    try:
        content = Path(path).read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        document = json.loads(content)
    except FileNotFoundError as error:
        raise TraceError(f"There is no file {path}.") from error
    except OSError as error:  # gzip.BadGzipFile included
        raise TraceError(f"{path} cannot be read: {error}. {ADVICE}") from error
    except (EOFError, zlib.error) as error:
        raise TraceError(f"{path} is a truncated or damaged gzip file. {ADVICE}") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path} is not JSON, or not all of it: {error}. {ADVICE}") from error
    if isinstance(document, list):
        document = {"traceEvents": document}
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise TraceError(
            f"{path} is JSON, but not a Chrome trace: it has no list 'traceEvents'. torch.profiler writes one with "
            f"export_chrome_trace."
        )
    return document


def nesting_order(event: Event) -> tuple[int, int, bool, str, str]:
    """A key that sorts an outer event before those inside it, in the same way for every order of the file."""
    return (event.begin_ns, -event.end_ns, not event.is_range, event.name, event.cat)


def _event(fields: dict[str, Any], path: str | Path) -> Event:
    name = fields.get("name")
    begin, duration = _nanoseconds(fields.get("ts")), _nanoseconds(fields.get("dur"))
    if not isinstance(name, str) or begin is None or duration is None or duration < 0:
        raise TraceError(
            f"{path}: the event {json.dumps(fields)[:200]} has no name, or no times 'ts' and 'dur' in microseconds. "
            f"{ADVICE}"
        )
    return Event(name, fields["cat"], _thread(fields), begin, begin + duration)


def _nanoseconds(microseconds: object) -> int | None:
    """None for what is not a finite number."""
    if isinstance(microseconds, bool) or not isinstance(microseconds, int | float):
        return None
    return round(microseconds * NS_PER_US) if math.isfinite(microseconds) else None


def _thread(fields: dict[str, Any]) -> tuple[str, str]:
    return str(fields.get("pid", "")), str(fields.get("tid", ""))


def _thread_names(raw: list[Any]) -> list[tuple[tuple[str, str], str]]:
    return [
        (_thread(event), str(event["args"]["name"]))
        for event in raw
        if isinstance(event, dict)
        and event.get("name") == "thread_name"
        and isinstance(event.get("args"), dict)
        and "name" in event["args"]
    ]
