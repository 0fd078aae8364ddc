"""Lesson 06: run the engine, one step at a time, under an admission rule of your own."""

from labs.kit.replay import AdmissionRule, Arrival, Replay, ReplayStep, replay

__all__ = ["AdmissionRule", "Arrival", "Replay", "ReplayStep", "replay"]
