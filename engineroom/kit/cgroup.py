"""What cgroups leave this process of the machine: cores and memory. Both versions are read (cgroups(7))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")  # lines "<number>:<controllers of version 1>:<path of the group>"
MEMORY_FILES = {  # limit, usage and statistics, by controller: version 2 has none
    "": ("memory.max", "memory.current", "memory.stat"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
}


def read_text(path: str | Path) -> str:
    """Return a file's text without surrounding white space; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _texts(name: str, controller: str = "") -> list[str]:
    texts = [read_text(folder / name) for folder in _folders(CGROUP / controller, controller)]
    return [text for text in texts if text]


def _folders(top: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's group and those above it; `controller` is "" for version 2.

    In a container the path of the group may be the host's. Then only the top folder exists: the container's own group.
    """
    for line in read_text(GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = top / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
            return
    yield top


def cores() -> int:
    """Return the number of cores that this process may use: CPU affinity, or the cgroup's quota when that is less."""
    lines: list[Sequence[str]] = [
        line.split() for line in _texts("cpu.max")
    ]  # version 2: microseconds in each period, or "max"
    periods = _texts("cpu.cfs_period_us", "cpu")  # version 1, where a quota of -1 is no limit
    lines += zip(_texts("cpu.cfs_quota_us", "cpu"), periods, strict=False)
    quotas = [int(quota) // int(period) for quota, period in lines if quota.isdigit()]
    return max(1, min([affinity(), *quotas]))


def affinity() -> int:
    """Return the number of cores that the scheduler may run this process on."""
    return len(os.sched_getaffinity(0))


def memory() -> tuple[int, int]:
    """Return total and available memory in bytes: the system's, or the cgroup's limit when that is less."""
    system = psutil.virtual_memory()
    total, available = system.total, system.available
    for controller, files in MEMORY_FILES.items():
        for folder in _folders(CGROUP / controller, controller):
            limit, used, statistics = (read_text(folder / name) for name in files)
            if limit.isdigit() and int(limit) < system.total:
                cache = dict(re.findall(r"^(\w*inactive_file) (\d+)", statistics, re.MULTILINE))
                reclaimable = int(cache.get("total_inactive_file", cache.get("inactive_file", 0)))
                free = int(limit) - int(used or 0) + reclaimable
                total, available = min(total, int(limit)), max(0, min(available, free))
    return total, available
