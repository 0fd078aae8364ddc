"""Lesson 06: an engine driven one step at a time, under an admission rule of one's own, and engines side by side on the
same requests, in turn, in one run."""

from engineroom.compare.job import CompareError, Job
from engineroom.compare.measure import Measured, Workload, compare
from labs.run_engine.replay import Arrival, Rule, Run, Step, replay

__all__ = [
    "Arrival",
    "CompareError",
    "Job",
    "Measured",
    "Rule",
    "Run",
    "Step",
    "Workload",
    "compare",
    "replay",
]
