"""The lessons are in order, and each one's exercises can be read."""

from __future__ import annotations

from labs.kit.course import LESSONS, exercises


def test_every_exercise_of_the_course_can_be_read() -> None:
    assert [lesson.number for lesson in LESSONS] == sorted({lesson.number for lesson in LESSONS})
    for lesson in LESSONS:
        assert lesson.slug.startswith(f"{lesson.number:02d}_")
        for one in exercises(lesson):
            assert one.version >= 1 and one.minutes > 0 and one.title
