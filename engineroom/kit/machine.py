"""The machine card: what this machine is and which engines it can run. A missing GPU is reported, not raised."""

from __future__ import annotations

import html
import platform
import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, Field

from engineroom.kit import cgroup, probe
from engineroom.kit.files import home
from engineroom.kit.probe import Gpu

__all__ = ["Gpu", "Machine", "machine"]


class Machine(BaseModel, frozen=True):
    """What this process may use of the machine at this moment; displayed as a table.

    Memory and disk are in GiB. ``cores`` and memory honour CPU affinity and cgroup limits. ``engines`` lists
    which of vllm, aot and trtllm can run here. ``gpu_counters`` says whether this user may read the GPU profiler's
    counters; it is None without a GPU.
    """

    os: str = Field(default_factory=platform.platform)
    python: str = Field(default_factory=platform.python_version)
    cpu: str = Field(default_factory=lambda: probe.cpu()[0])
    cores: int = Field(default_factory=cgroup.cores)
    isa: list[str] = Field(default_factory=lambda: probe.cpu()[1])
    memory_gib: float = Field(default_factory=lambda: _gib(cgroup.memory()[0]))
    memory_available_gib: float = Field(default_factory=lambda: _gib(cgroup.memory()[1]))
    shm_gib: float = Field(default_factory=lambda: _free_gib("/dev/shm"))
    disk_free_gib: float = Field(default_factory=lambda: _free_gib(home()))
    compiler: str | None = Field(default_factory=probe.compiler)
    gpus: list[Gpu] = Field(default_factory=probe.gpus)
    cuda: str | None = Field(default_factory=probe.cuda)
    gpu_counters: bool | None = Field(
        default_factory=lambda data: probe.gpu_counters() if data["gpus"] else None
    )
    versions: dict[str, str] = Field(default_factory=probe.versions)
    engines: list[str] = Field(
        default_factory=lambda data: probe.engines(data["versions"], data["gpus"], data["compiler"])
    )

    def short(self) -> dict[str, str | int | float | list[str]]:
        """Return the fields that a record or a report contains: no name of a host or a person."""
        fields = self.model_dump(include={"os", "python", "cpu", "cores", "isa", "memory_gib", "cuda"})
        known = {name: value for name, value in fields.items() if value}
        return known | {"gpus": [gpu.name for gpu in self.gpus]}

    def table(self) -> list[tuple[str, str]]:
        """Return rows of (label, text)."""
        counters = "allowed" if self.gpu_counters else "only for an administrator"
        return [
            ("System", self.os),
            ("Python", self.python),
            ("CPU", f"{self.cpu}, {self.cores} cores, {' '.join(self.isa) or 'instruction sets unknown'}"),
            ("Memory", f"{self.memory_available_gib} of {self.memory_gib} GiB available"),
            ("Shared memory", f"{self.shm_gib} GiB free in /dev/shm"),
            ("Disk", f"{self.disk_free_gib} GiB free"),
            ("C++ compiler", self.compiler or "none"),
            ("GPU", "; ".join(map(str, self.gpus)) or "none"),
            *([("CUDA", self.cuda or "unknown"), ("Profiler counters", counters)] if self.gpus else []),
            ("Versions", ", ".join(f"{name} {version}" for name, version in self.versions.items()) or "none"),
            ("Engines", ", ".join(self.engines) or "none"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{label:<17}  {text}" for label, text in self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = "style='text-align:left'"
        rows = [f"<tr><th {cell}>{label}<td {cell}>{html.escape(text)}" for label, text in self.table()]
        return f"<table>{''.join(rows)}</table>"


def machine() -> Machine:
    """Probe this machine now. Takes about 0.1 s, longer where there are GPUs."""
    return Machine()


def _free_gib(folder: str | Path) -> float:
    """Return 0 for a folder that does not exist, such as /dev/shm in some sandboxes."""
    with suppress(OSError):
        return _gib(shutil.disk_usage(folder).free)
    return 0.0


def _gib(size: float) -> float:
    return round(size / 1024**3, 1)
