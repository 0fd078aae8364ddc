"""The roof: continuous, never above either ceiling, and a step at its floor touches it."""

from __future__ import annotations

from math import isclose, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.profile.ceilings import Ceilings
from engineroom.profile.counts import Count
from engineroom.profile.roofline import Roof, RooflineError, place

RATES = st.floats(1e6, 1e16)
ROOFS = st.builds(Roof, RATES, RATES)
COUNTS = st.builds(Count, st.integers(0, 10**15), st.integers(1, 10**12), st.integers(0, 10**9))


@given(ROOFS, st.floats(1e-3, 1e6))
def test_the_roof_is_the_lower_of_two_ceilings(roof: Roof, intensity: float) -> None:
    rate = roof.attainable_operations_per_s(intensity)
    assert rate <= roof.operations_per_s
    assert rate <= roof.read_bytes_per_s * intensity
    assert rate in (roof.operations_per_s, roof.read_bytes_per_s * intensity)
    assert roof.attainable_operations_per_s(2 * intensity) >= rate


@given(ROOFS)
def test_the_ceilings_meet_at_the_ridge(roof: Roof) -> None:
    ridge = roof.ridge_intensity
    assert isclose(roof.attainable_operations_per_s(ridge), roof.operations_per_s, rel_tol=1e-9)
    assert roof.bound(ridge * 0.99) == "memory"
    assert roof.bound(ridge * 1.01) == "compute"


@given(ROOFS, COUNTS, st.floats(1, 1e6))
def test_a_step_lies_below_the_roof_by_as_much_as_it_is_slower_than_its_floor(
    roof: Roof, count: Count, slowdown: float
) -> None:
    floor = roof.floor_seconds(count)
    point = place(count, floor * slowdown, roof)
    assert point.floor_seconds == floor
    assert isclose(point.share_of_roof, 1 / slowdown, rel_tol=1e-9)
    if count.operations:
        share = point.operations_per_s / point.attainable_operations_per_s
        assert isclose(share, point.share_of_roof, rel_tol=1e-6)


@given(ROOFS, COUNTS)
def test_the_ceiling_that_binds_is_the_one_that_a_better_machine_would_raise(
    roof: Roof, count: Count
) -> None:
    faster_memory = Roof(2 * roof.read_bytes_per_s, roof.operations_per_s)
    more_compute = Roof(roof.read_bytes_per_s, 2 * roof.operations_per_s)
    floor = roof.floor_seconds(count)
    if roof.bound(count.intensity) == "memory":
        assert faster_memory.floor_seconds(count) < floor
    elif not isclose(count.intensity, roof.ridge_intensity, rel_tol=1e-9):
        assert more_compute.floor_seconds(count) < floor == faster_memory.floor_seconds(count)


@pytest.mark.parametrize("rates", [(0, 1), (1, 0), (-1, 1), (1, nan)])
def test_a_ceiling_that_is_not_positive_is_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(RooflineError, match="greater than 0"):
        Roof(*rates)


@pytest.mark.parametrize("seconds", [0, -1, nan])
def test_a_time_that_is_not_positive_is_refused(seconds: float) -> None:
    with pytest.raises(RooflineError, match="seconds"):
        place(Count(1, 1), seconds, Roof(1, 1))


def test_a_dtype_that_was_not_measured_is_refused() -> None:
    ceilings = Ceilings("cpu", "a CPU", 2, 4096, 1e10, {"float32": 1e11}, 1e-6)
    assert Roof.of(ceilings, "float32") == Roof(1e10, 1e11)
    with pytest.raises(RooflineError, match="bfloat16 was not measured"):
        Roof.of(ceilings, "bfloat16")
