"""The ceilings on this machine; what they divide by is counted with a clock that advances one second at each look."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engineroom.profile import ceilings
from engineroom.profile.ceilings import (
    CeilingError,
    Ceilings,
    Clock,
    last_level_cache_bytes,
    matrix_rate,
    measure_ceilings,
    operator_call_seconds,
    read_bandwidth,
)


def seconds() -> Clock:
    ticks = count()
    return lambda: float(next(ticks))


def steps(durations: list[float]) -> Clock:
    """A clock under which the runs last `durations`, the warm-up first."""
    looks = iter([time for duration in durations for time in (0.0, duration)])
    return lambda: next(looks)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ceilings.MATRIX_SIZE, "cpu", 64)
    monkeypatch.setitem(ceilings.BUFFER_BYTES, "cpu", 4096)
    monkeypatch.setattr(ceilings, "CACHE_MULTIPLE", 0)


@pytest.mark.usefixtures("small")
def test_the_ceilings_of_this_machine() -> None:
    result = measure_ceilings("cpu", repeats=3)
    assert result.device == "cpu" and result.device_name and result.num_threads == torch.get_num_threads()
    assert list(result.operations_per_s) == ["float32", "bfloat16"]
    rates = [result.read_bytes_per_s, result.operator_call_s, *result.operations_per_s.values()]
    assert all(rate > 0 for rate in rates)


@pytest.mark.usefixtures("small")
def test_what_is_divided_by_the_time() -> None:
    result = measure_ceilings("cpu", ["float32"], repeats=3, clock=seconds())
    expected = Ceilings(
        device="cpu",
        device_name=result.device_name,
        num_threads=torch.get_num_threads(),
        buffer_bytes=4096,
        read_bytes_per_s=4096,
        operations_per_s={"float32": 2 * 64**3},
        operator_call_s=1 / ceilings.OPERATOR_CALLS,
    )
    assert result == expected


def test_the_operations_are_those_that_pytorch_counts() -> None:
    with FlopCounterMode(display=False) as counter:
        rate = matrix_rate("cpu", "float32", 48, repeats=3, clock=seconds())
    warm_up = 1
    assert counter.get_total_flops() == (3 + warm_up) * rate


def test_the_median_counts_and_the_warm_up_does_not() -> None:
    assert read_bandwidth("cpu", 400, repeats=3, clock=steps([99, 4, 1, 2])) == 200
    assert operator_call_seconds("cpu", calls=10, repeats=3, clock=steps([99, 50, 10, 20])) == 2


def test_the_buffer_is_much_larger_than_the_cache_and_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte = 10**9
    monkeypatch.setattr(ceilings.cgroup, "memory", lambda: (100 * gigabyte, 100 * gigabyte))
    assert ceilings.buffer_size("cpu") >= max(8 * last_level_cache_bytes(), 512 * 2**20)
    monkeypatch.setattr(ceilings.cgroup, "memory", lambda: (gigabyte, gigabyte // 2 + 3))
    assert ceilings.buffer_size("cpu") == gigabyte // 8, "a quarter of the free memory, in whole float32"


@pytest.mark.parametrize("dtype", ["float99", "nn", "int4", "bool"])
def test_a_dtype_without_a_matrix_product_is_refused(dtype: str) -> None:
    with pytest.raises(CeilingError, match=dtype):
        matrix_rate("cpu", dtype, 64)


def test_more_memory_than_there_is_is_refused() -> None:
    with pytest.raises(CeilingError, match="GB of free memory"):
        read_bandwidth("cpu", 2**60)


def test_a_gpu_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CeilingError, match="no CUDA GPU"):
        measure_ceilings("cuda")
