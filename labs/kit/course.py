"""The lessons in their order, and the exercises that their checks modules register."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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
    Lesson(0, "00_preflight", "Preflight", "What have I got, and what will it cost?", "labs.preflight", 15, 15),
    Lesson(1, "01_serve_with_vllm", "Serve with vLLM", "How far do good defaults go?", "labs.serve_with_vllm", 35, 25),
    Lesson(2, "02_measure", "Measure", "Is it fast, and for whom?", "labs.measure", 45, 35),
    Lesson(4, "04_convert_checkpoint", "Convert a checkpoint", "What does conversion do to the weights?",
           "labs.convert_checkpoint", 40, 30),
    Lesson(5, "05_build_engine", "Build an engine", "What do we trade for speed?", "labs.build_engine", 45, 40),
    Lesson(6, "06_run_engine", "Run the engine", "What does the runtime add?", "labs.run_engine", 45, 40),
    Lesson(10, "10_deploy_with_triton", "Deploy with Triton", "How do I ship it?", "labs.deploy_with_triton", 55, 45),
]  # fmt: skip


@dataclass(frozen=True)
class Exercise:
    """One exercise: ``function`` checks an answer to it."""

    id: str
    version: int
    title: str
    minutes: int
    function: Callable[..., None]


_exercises: dict[str, Exercise] = {}


def exercise(id: str, *, version: int, title: str, minutes: int) -> Callable[[Callable], Callable]:
    """Register a check function. A new ``version`` means that older passes no longer count."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _exercises[id] = Exercise(id, version, title, minutes, function)
        return function

    return register


def exercises(lesson: Lesson) -> list[Exercise]:
    """The exercises of a lesson in the order of their definition; none when it has no checks module."""
    module = f"{lesson.lab}.checks"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, lesson.lab):
            raise
    return [one for one in _exercises.values() if one.id.startswith(f"{lesson.number:02d}.")]
