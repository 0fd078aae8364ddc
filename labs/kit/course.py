"""The lessons in order, and the exercises that their checks modules register."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

ROOMS = "labs"  # the package that holds a package for each lesson


@dataclass(frozen=True)
class Lesson:
    """One lesson. ``slug`` is the notebook's file name without ``.ipynb``; the minutes are those of a learner."""

    number: int
    slug: str
    title: str
    question: str
    minutes_cpu: int
    minutes_gpu: int

    @property
    def checks_module(self) -> str:
        """The module that registers the lesson's exercises: 02_measure has labs.measure.checks."""
        return f"{ROOMS}.{self.slug.partition('_')[2]}.checks"


LESSONS = [
    Lesson(0, "00_preflight", "Preflight", "What have I got, and what will it cost?", 15, 15),
    Lesson(1, "01_serve_with_vllm", "Serve with vLLM", "How far do good defaults go?", 35, 25),
    Lesson(2, "02_measure", "Measure", "Is it fast, and for whom?", 45, 35),
    Lesson(3, "03_kv_cache_and_batching", "KV cache and batching", "Where does the memory go?", 45, 40),
    Lesson(4, "04_convert_checkpoint", "Convert a checkpoint", "What does conversion do to the weights?", 40, 30),
    Lesson(5, "05_build_engine", "Build an engine", "What do we trade for speed?", 45, 40),
    Lesson(6, "06_run_engine", "Run the engine", "What does the runtime add?", 45, 40),
    Lesson(10, "10_deploy_with_triton", "Deploy with Triton", "How do I ship it?", 45, 45),
    Lesson(11, "11_profile", "Profile", "Where did the time go?", 45, 40),
]  # fmt: skip

CheckFunction = Callable[..., None]


@dataclass(frozen=True)
class Exercise:
    """One exercise; ``function`` checks an answer to it."""

    id: str
    version: int
    title: str
    minutes: int
    function: CheckFunction


_exercises: dict[str, Exercise] = {}


def exercise(id: str, *, version: int, title: str, minutes: int) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check function. A new ``version`` means that earlier passes no longer count."""

    def register(function: CheckFunction) -> CheckFunction:
        _exercises[id] = Exercise(id, version, title, minutes, function)
        return function

    return register


def exercises(lesson: Lesson) -> list[Exercise]:
    """Import the lesson's checks module; return its exercises in the order of their definition.

    A lesson without a checks module has none. Raises what the module raises when it is imported.
    """
    module = lesson.checks_module
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.removesuffix(".checks")):
            raise
    prefix = f"{lesson.number:02d}."
    return [exercise for id, exercise in _exercises.items() if id.startswith(prefix)]


def find_exercise(id: str) -> Exercise | None:
    """Return the exercise with this id, None when there is none. Imports the checks of one lesson alone."""
    for lesson in LESSONS:
        if id.startswith(f"{lesson.number:02d}."):
            return next((exercise for exercise in exercises(lesson) if exercise.id == id), None)
    return None


def exercise_ids() -> list[str]:
    """Return the ids of all exercises, sorted. Lessons whose checks cannot be imported here are left out."""
    ids: list[str] = []
    for lesson in LESSONS:
        try:
            ids += [exercise.id for exercise in exercises(lesson)]
        except ImportError:  # a package that only this lesson needs
            continue
    return sorted(ids)
