"""The roofline: the rate that a machine can reach at an arithmetic intensity, and where a step lies below it.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures" (2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engineroom.kit.errors import UserError
from engineroom.profile.ceilings import Ceilings
from engineroom.profile.counts import Count

Bound = Literal["memory", "compute"]


class RooflineError(UserError, ValueError):
    """A ceiling or a time that no machine has."""


@dataclass(frozen=True)
class Roof:
    """Two ceilings of one machine. Raises RooflineError unless both are positive."""

    read_bytes_per_s: float
    operations_per_s: float

    def __post_init__(self) -> None:
        if not (self.read_bytes_per_s > 0 and self.operations_per_s > 0):
            raise RooflineError(f"{self}: both ceilings must be greater than 0. Measure them again.")

    @classmethod
    def of(cls, ceilings: Ceilings, dtype: str) -> Roof:
        """The roof over products in `dtype`. Raises RooflineError for a dtype that was not measured."""
        if dtype not in ceilings.operations_per_s:
            measured = ", ".join(ceilings.operations_per_s)
            raise RooflineError(
                f"The matrix rate of {dtype} was not measured. Measured: {measured}. Measure it with "
                f"measure_ceilings(dtypes=[{dtype!r}])."
            )
        return cls(ceilings.read_bytes_per_s, ceilings.operations_per_s[dtype])

    @property
    def ridge_intensity(self) -> float:
        """Operations per byte where the two ceilings meet: below it memory binds, above it the matrix rate."""
        return self.operations_per_s / self.read_bytes_per_s

    def attainable_operations_per_s(self, intensity: float) -> float:
        """The highest rate at `intensity`, in operations per byte."""
        return min(self.operations_per_s, self.read_bytes_per_s * intensity)

    def bound(self, intensity: float) -> Bound:
        """The ceiling that binds at `intensity`."""
        return "memory" if intensity < self.ridge_intensity else "compute"

    def floor_seconds(self, count: Count) -> float:
        """The shortest time of a step: its bytes or its operations at full rate, whichever takes longer."""
        return max(count.num_bytes / self.read_bytes_per_s, count.operations / self.operations_per_s)


@dataclass(frozen=True)
class RooflinePoint:
    """A step in the roofline plot: x is `intensity`, y is `operations_per_s`.

    `share_of_roof` is 1 for a step that takes `floor_seconds`. It is above 1 only when a count or a ceiling is wrong,
    such as weights that stay in a CPU's cache from step to step.
    """

    intensity: float
    operations_per_s: float
    attainable_operations_per_s: float
    share_of_roof: float
    bound: Bound
    seconds: float
    floor_seconds: float


def place(count: Count, seconds: float, roof: Roof) -> RooflinePoint:
    """Where a step of `count` that took `seconds` lies under `roof`. Raises RooflineError for a time of 0 or less."""
    if not seconds > 0:
        raise RooflineError(f"A step cannot take {seconds} s. Give its duration in seconds, greater than 0.")
    floor = roof.floor_seconds(count)
    return RooflinePoint(
        intensity=count.intensity,
        operations_per_s=count.operations / seconds,
        attainable_operations_per_s=roof.attainable_operations_per_s(count.intensity),
        share_of_roof=floor / seconds,
        bound=roof.bound(count.intensity),
        seconds=seconds,
        floor_seconds=floor,
    )
