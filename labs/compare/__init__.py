"""Lesson 06: engines side by side on the same requests, in turn, in one run."""

from labs.compare.measure import CompareError, Measured, Workload, compare

__all__ = ["CompareError", "Measured", "Workload", "compare"]
