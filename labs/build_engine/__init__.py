"""Lesson 05: from a workload to the limits of an engine, what each costs in memory, and new weights for it."""
