"""The lessons are in order, and the exercises of each can be imported."""

from __future__ import annotations

import importlib.util

from labs.kit.course import LESSONS, exercises


def test_every_exercise_of_the_course_can_be_read() -> None:
    assert [lesson.number for lesson in LESSONS] == sorted({lesson.number for lesson in LESSONS})
    for lesson in LESSONS:
        assert lesson.slug.startswith(f"{lesson.number:02d}_")
        for exercise in exercises(lesson):
            assert exercise.version >= 1 and exercise.minutes > 0 and exercise.title


def test_the_checks_of_a_lesson_are_in_the_room_of_its_name() -> None:
    modules = [lesson.checks_module for lesson in LESSONS]
    assert modules[:2] == ["labs.preflight.checks", "labs.serve_with_vllm.checks"]
    assert all(importlib.util.find_spec(module) for module in modules)
