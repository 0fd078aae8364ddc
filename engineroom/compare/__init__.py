"""Engines side by side on the same requests, in turn, in one run."""

from engineroom.compare.measure import Comparison, compare
from engineroom.compare.settings import CompareError, EngineSettings
from engineroom.compare.workload import BatchWorkload

__all__ = ["BatchWorkload", "CompareError", "Comparison", "EngineSettings", "compare"]
