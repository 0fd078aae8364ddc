"""What this machine can do, measured with PyTorch on the CPU or on the current GPU.

Three ceilings bound a step: the rate at which memory is read, the rate of matrix products in each dtype, and the time
of an operator call that has almost nothing to compute. Each figure is the median of several runs after a warm-up; a
machine that other programs use is slower than these ceilings say, so measure again when in doubt.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from engineroom.kit import cgroup, probe
from engineroom.kit.errors import UserError

Device = Literal["cpu", "cuda"]
Clock = Callable[[], float]  # seconds; only differences count
DTYPES: dict[Device, tuple[str, ...]] = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float16")}
MATRIX_SIZE: dict[Device, int] = {"cpu": 2048, "cuda": 8192}
BUFFER_BYTES: dict[Device, int] = {"cpu": 512 * 2**20, "cuda": 16 * 10**9}
CACHE_MULTIPLE = 8  # the buffer is at least this many times as large as a CPU's last-level cache
FREE_MEMORY_SHARE = 4  # and at most a quarter of the free memory
OPERATOR_CALLS = 1000
REPEATS = 7


class CeilingError(UserError, RuntimeError):
    """A measurement that this machine cannot make."""


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of one device. `operations_per_s` is by dtype, with a multiply-add as two operations.

    `buffer_bytes` is the size of the buffer that was read. `num_threads` are those of PyTorch on the CPU.
    `operator_call_s` is the time from one call of a tiny operator to the next: on a GPU, one kernel launch.
    """

    device: Device
    device_name: str
    num_threads: int
    buffer_bytes: int
    read_bytes_per_s: float
    operations_per_s: Mapping[str, float]
    operator_call_s: float


def measure_ceilings(
    device: Device | None = None,
    dtypes: Sequence[str] | None = None,
    *,
    repeats: int = REPEATS,
    clock: Clock = time.perf_counter,
) -> Ceilings:
    """Measure all ceilings; a few seconds. `device` defaults to "cuda" where there is a GPU, else "cpu".

    `dtypes`, such as ["bfloat16"], default to DTYPES. Raises CeilingError for a GPU that is absent, for a dtype in
    which the device has no matrix product, and for too little memory.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise CeilingError("PyTorch sees no CUDA GPU here. Measure the CPU: device 'cpu'.")
    size = buffer_size(device)
    ceilings = Ceilings(
        device=device,
        device_name=torch.cuda.get_device_name() if device == "cuda" else probe.cpu()[0],
        num_threads=torch.get_num_threads(),
        buffer_bytes=size,
        read_bytes_per_s=read_bandwidth(device, size, repeats=repeats, clock=clock),
        operations_per_s={
            dtype: matrix_rate(device, dtype, MATRIX_SIZE[device], repeats=repeats, clock=clock)
            for dtype in dtypes or DTYPES[device]
        },
        operator_call_s=operator_call_seconds(device, repeats=repeats, clock=clock),
    )
    if device == "cuda":
        torch.cuda.empty_cache()  # the buffer is as large as an engine
    return ceilings


def read_bandwidth(
    device: Device, num_bytes: int, *, repeats: int = REPEATS, clock: Clock = time.perf_counter
) -> float:
    """Bytes per second of a reduction that reads a buffer of `num_bytes` (a multiple of 4) and writes one number."""
    buffer = _ones((num_bytes // 4,), torch.float32, device)
    return buffer.nbytes / _median_seconds(buffer.sum, device, repeats, clock)


def matrix_rate(
    device: Device, dtype: str, size: int, *, repeats: int = REPEATS, clock: Clock = time.perf_counter
) -> float:
    """Operations per second of a product of two matrices [size, size] of `dtype`: 2 * size**3 operations."""
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise CeilingError(f"{dtype!r} is not a dtype of PyTorch. Expected one such as 'bfloat16'.")
    matrix = _ones((size, size), torch.float32, device)
    try:
        a, b = matrix.to(torch_dtype), matrix.T.to(torch_dtype)
        seconds = _median_seconds(lambda: a @ b, device, repeats, clock)
    except RuntimeError as error:
        raise CeilingError(
            f"PyTorch has no matrix product of {dtype} on {device}: {error}. Choose one of "
            f"{', '.join(DTYPES[device])}."
        ) from error
    return 2 * size**3 / seconds


def operator_call_seconds(
    device: Device,
    *,
    calls: int = OPERATOR_CALLS,
    repeats: int = REPEATS,
    clock: Clock = time.perf_counter,
) -> float:
    """Seconds from one call of an operator on a single number to the next, over `calls` calls in a row."""
    number = torch.zeros(1, device=device)

    def run() -> None:
        for _ in range(calls):
            number.add_(1)

    return _median_seconds(run, device, repeats, clock) / calls


def buffer_size(device: Device) -> int:
    """Bytes to read: much more than the last-level cache, at most a quarter of the free memory."""
    size = BUFFER_BYTES[device]
    if device == "cuda":
        return min(size, torch.cuda.mem_get_info()[0] // FREE_MEMORY_SHARE // 4 * 4)
    size = max(size, CACHE_MULTIPLE * last_level_cache_bytes())
    return min(size, cgroup.memory()[1] // FREE_MEMORY_SHARE // 4 * 4)


def last_level_cache_bytes() -> int:
    """Of the CPU, from Linux's /sys; 0 where it is unknown."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [cgroup.read_text(path) for path in folder.glob("index*/size")]
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1:] in units), default=0)


def _median_seconds(run: Callable[[], object], device: Device, repeats: int, clock: Clock) -> float:
    """The median of `repeats` runs, after one that is not counted. A GPU is waited for."""
    samples: list[float] = []
    for _ in range(repeats + 1):
        began = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        samples.append(clock() - began)
    return statistics.median(samples[1:])


def _ones(shape: tuple[int, ...], dtype: torch.dtype, device: Device) -> torch.Tensor:
    """Like torch.ones; raises CeilingError when the memory does not suffice."""
    try:
        return torch.ones(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # of the GPU's allocator and of the CPU's
        gigabytes = math.prod(shape) * dtype.itemsize / 1e9
        raise CeilingError(
            f"There are no {gigabytes:.1f} GB of free memory on {device}. End other programs and try again."
        ) from error
