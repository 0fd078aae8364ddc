"""The lessons in their order: number, question, where their checks live, how long they take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One lesson. ``slug`` is the notebook's file name without ending; checks are in ``{lab}.checks``."""

    number: int
    slug: str
    title: str
    question: str
    lab: str
    minutes_cpu: int
    minutes_gpu: int


LESSONS = [
    Lesson(
        0, "00_preflight", "Preflight", "What have I got, and what will it cost?", "labs.preflight", 15, 15
    ),
    Lesson(
        1, "01_serve_with_vllm", "Serve with vLLM", "How far do good defaults go?", "labs.serving", 35, 25
    ),
    Lesson(2, "02_measure", "Measure", "Is it fast, and for whom?", "labs.load", 45, 35),
]
