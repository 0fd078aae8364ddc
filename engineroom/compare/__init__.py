"""Engines side by side on the same requests, in turn, in one run."""

from engineroom.compare.settings import CompareError, Job
from engineroom.compare.measure import Measured, Workload, compare

__all__ = ["CompareError", "Job", "Measured", "Workload", "compare"]
