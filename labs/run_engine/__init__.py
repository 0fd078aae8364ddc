"""Lesson 06: run the engine, one step at a time, under an admission rule of your own."""

from labs.run_engine.replay import Arrival, Rule, Run, Step, replay

__all__ = ["Arrival", "Rule", "Run", "Step", "replay"]
