"""Lesson 06: an engine driven one step at a time, under an admission rule of one's own."""

from labs.engine.run.replay import Arrival, Rule, Run, Step, replay

__all__ = ["Arrival", "Rule", "Run", "Step", "replay"]
