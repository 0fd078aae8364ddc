"""The map of the course: every lesson on one page, what is done, and where to go on."""

from __future__ import annotations

import html
from dataclasses import dataclass

from labs.kit import course
from labs.kit.course import Exercise, Lesson
from labs.kit.progress import Progress, Status, load
from labs.kit.show import show_html

SIGNS: dict[Status, str] = {"done": "✓", "changed": "↻", "started": "◐", "open": "○"}
LEGEND = "✓ passed, ◐ started, ○ not yet, ↻ changed since you passed it"


@dataclass(frozen=True)
class Stop:
    """One lesson on the map: its exercises, and how far each of them is."""

    lesson: Lesson
    exercises: list[Exercise]
    statuses: list[Status]

    @property
    def next(self) -> Exercise | None:
        """The first exercise that is not done."""
        pairs = zip(self.exercises, self.statuses, strict=True)
        return next((exercise for exercise, status in pairs if status != "done"), None)

    @property
    def signs(self) -> str:
        return " ".join(SIGNS[status] for status in self.statuses)


def show_map() -> None:
    """Show the map: in a notebook as a table with links to the lessons, elsewhere as text."""
    stops = course_stops(load())
    show_html(as_html(stops), plain=as_text(stops))


def course_stops(progress: Progress) -> list[Stop]:
    """Return the lessons in order. Imports the checks of all lessons."""
    stops = []
    for lesson in course.LESSONS:
        exercises = course.exercises(lesson)
        statuses: list[Status] = [progress.status(exercise.id, exercise.version) for exercise in exercises]
        stops.append(Stop(lesson, exercises, statuses))
    return stops


def as_text(stops: list[Stop]) -> str:
    """Return the map as lines of text; an arrow marks the lesson in which the next exercise waits."""
    here = _here(stops)
    lines = [
        f"{'→' if stop is here else ' '} {stop.lesson.number:02d} {stop.lesson.title:22} {stop.signs}".rstrip()
        for stop in stops
    ]
    return "\n".join([*lines, LEGEND, _next_line(here)])


def as_html(stops: list[Stop]) -> str:
    """Return the map as a table. It sets no colours, so JupyterLab's theme, light or dark, decides."""
    here = _here(stops)
    rows = "".join(_row(stop, is_here=stop is here) for stop in stops)
    heading = "".join(
        f'<th style="text-align:left">{name}</th>' for name in ("", "lesson", "the question", "exercises")
    )
    return f"<table><tr>{heading}</tr>{rows}</table><p>{LEGEND}<br><b>{html.escape(_next_line(here))}</b></p>"


def _row(stop: Stop, *, is_here: bool) -> str:
    lesson = stop.lesson
    link = f'<a href="{lesson.slug}.ipynb">{lesson.number:02d} · {html.escape(lesson.title)}</a>'
    marks = " ".join(
        f'<span title="{html.escape(f"{exercise.id}: {exercise.title}")}">{SIGNS[status]}</span>'
        for exercise, status in zip(stop.exercises, stop.statuses, strict=True)
    )
    cells = (
        "→" if is_here else "",
        f"<b>{link}</b>" if is_here else link,
        html.escape(lesson.question),
        marks,
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _here(stops: list[Stop]) -> Stop | None:
    return next((stop for stop in stops if stop.next), None)


def _next_line(here: Stop | None) -> str:
    if here is None or here.next is None:
        return "You have passed every exercise of the course."
    lesson = here.lesson
    return f"Next: {here.next.title} ({here.next.id}), in lesson {lesson.number:02d}, {lesson.title}"
