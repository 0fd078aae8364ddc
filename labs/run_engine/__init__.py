"""Lesson 06: run the engine, one step at a time, under an admission rule of your own."""

from labs.run_engine.replay import AdmissionRule, Arrival, Replay, ReplayStep, replay

__all__ = ["AdmissionRule", "Arrival", "Replay", "ReplayStep", "replay"]
