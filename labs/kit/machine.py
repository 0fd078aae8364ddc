"""What this machine is and what the course can run on it. A missing GPU is a finding, not an error."""

from __future__ import annotations

import html
import os
import platform
import shutil
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from labs.kit import probe
from labs.kit.home import home


class Gpu(BaseModel):
    """One GPU as nvidia-smi reports it; memory in GiB, None where the driver does not tell."""

    model_config = ConfigDict(frozen=True)
    name: str
    memory_gib: float | None
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory_gib} GiB" if self.memory_gib else "memory shared with the CPU"
        return f"{self.name}, {memory}, compute capability {self.compute_capability}, driver {self.driver}"


class Machine(BaseModel):
    """The machine, as far as this process may use it; ``str()`` and a notebook show it as a table.

    Memory and disk in GiB. ``cores`` and memory honour CPU affinity and cgroup limits. ``engines`` are those
    of vllm, aot, trtllm that can run here. ``gpu_counters``: may this user read the GPU profiler's counters;
    None without a GPU.
    """

    model_config = ConfigDict(frozen=True)
    os: str
    container: bool
    python: str
    cpu: str
    cores: int
    isa: list[str]
    memory_gib: float
    memory_available_gib: float
    shm_gib: float
    disk_free_gib: float
    compiler: str | None
    gpus: list[Gpu]
    cuda: str | None
    gpu_counters: bool | None
    versions: dict[str, str]
    engines: list[str]

    def short(self) -> dict[str, str | int | float | list[str]]:
        """The part that a record or a report keeps: no name of a host or a person."""
        kept = self.model_dump(include={"os", "python", "cpu", "cores", "isa", "memory_gib", "cuda"})
        return {key: value for key, value in kept.items() if value} | {
            "gpus": [gpu.name for gpu in self.gpus]
        }

    def table(self) -> list[tuple[str, str]]:
        """Rows of label and text."""
        rows = [
            ("System", self.os + (" (container)" if self.container else "")),
            ("Python", self.python),
            ("CPU", f"{self.cpu}, {self.cores} cores, {' '.join(self.isa) or 'instruction sets unknown'}"),
            ("Memory", f"{self.memory_available_gib} of {self.memory_gib} GiB available"),
            ("Shared memory", f"{self.shm_gib} GiB free in /dev/shm"),
            ("Disk", f"{self.disk_free_gib} GiB free"),
            ("C++ compiler", self.compiler or "none"),
            ("GPU", "; ".join(map(str, self.gpus)) or "none"),
        ]
        if self.gpus:
            counters = "allowed" if self.gpu_counters else "only for an administrator"
            rows += [("CUDA", self.cuda or "unknown"), ("Profiler counters", counters)]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [*rows, ("Versions", versions or "none"), ("Engines", ", ".join(self.engines) or "none")]

    def __str__(self) -> str:
        rows = self.table()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        rows = [f"<th {left}>{label}</th><td {left}>{html.escape(text)}</td>" for label, text in self.table()]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def machine() -> Machine:
    """Look at this machine now; about a tenth of a second, more where there are GPUs."""
    cpu, isa = probe.cpu()
    gpus = [Gpu(**facts) for facts in probe.gpus()]
    total, available = probe.memory(psutil.virtual_memory().total, psutil.virtual_memory().available)
    versions = probe.versions()
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CXX", "g++"), "g++", "clang++"])), None)
    return Machine(
        os=probe.system(),
        container=probe.in_container(),
        python=platform.python_version(),
        cpu=cpu,
        cores=probe.cores(),
        isa=isa,
        memory_gib=_gib(total),
        memory_available_gib=_gib(available),
        shm_gib=_gib(shutil.disk_usage("/dev/shm").free) if Path("/dev/shm").is_dir() else 0,
        disk_free_gib=_gib(shutil.disk_usage(home()).free),
        compiler=compiler,
        gpus=gpus,
        cuda=probe.cuda() if gpus else None,
        gpu_counters=probe.gpu_counters() if gpus else None,
        versions=versions,
        engines=probe.engines(versions, bool(gpus), bool(compiler)),
    )


def _gib(size: float) -> float:
    return round(size / 1024**3, 1)


def problems(one: Machine) -> list[str]:
    """What will hurt in this course, each with its remedy; empty when all is well."""
    no_avx2 = "x86_64" in one.os and not one.gpus and "avx2" not in one.isa
    found = {
        f"Only {one.cores} core: server and load will share it. Use 2 or more.": one.cores < 2,
        f"Only {one.memory_available_gib} GiB of memory available, a vLLM server needs about 4. Close "
        "programs and notebooks, or raise the container's memory limit.": one.memory_available_gib < 4,
        f"Only {one.disk_free_gib} GiB of disk free, keep 5 for engines and logs. Delete files, or point "
        "ENGINEROOM_HOME to a larger disk.": one.disk_free_gib < 5,
        f"Only {one.shm_gib} GiB free in /dev/shm, through which servers exchange data. Start the container "
        "with --shm-size=1g.": one.shm_gib < 0.5,
        "No C++ compiler, which torch.compile and the aot engine need. Install g++ "
        "(apt-get install g++).": not one.compiler,
        "This CPU lacks AVX2: vLLM's CPU build does not start. Use a newer machine.": no_avx2,
        "No engine can run here. Install the course environment again; with a GPU see that nvidia-smi "
        "works.": not one.engines,
        "GPU profiler counters need an administrator. Load the driver with "
        "NVreg_RestrictProfilingToAdminUsers=0, or start the container with --cap-add=SYS_ADMIN.": (
            one.gpu_counters is False
        ),
    }
    return [text for text, bad in found.items() if bad]


if __name__ == "__main__":
    here = machine()
    print(here, *problems(here), sep="\n")
