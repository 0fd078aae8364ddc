"""Lesson 00: what this machine is, whether a model fits, what the course will cost, and a first answer."""

from labs.kit.bill import bill, time_and_money
from labs.preflight.answer import Answerer
from labs.preflight.memory import draw_memory
from labs.preflight.meter import Meter
from labs.preflight.problems import problems

__all__ = ["Answerer", "Meter", "bill", "draw_memory", "problems", "time_and_money"]
