"""Minutes and dollars of each lesson on a rented GPU, from the reference price list."""

from __future__ import annotations

from labs.kit.bill import lesson_cost, price_per_hour
from labs.kit.course import LESSONS


def bill(gpu: str = "H100") -> list[dict[str, object]]:
    """One row a lesson: minutes on a CPU machine, minutes and dollars on one ``gpu``; the last row is the sum."""
    rows = [
        {"lesson": one.slug, "minutes": one.minutes_cpu, f"minutes, {gpu}": one.minutes_gpu,
         f"dollars, {gpu}": round(lesson_cost(one.minutes_gpu, gpu), 2)}
        for one in LESSONS
    ]  # fmt: skip
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "lesson"}
    return [*rows, {"lesson": "all of them", **total}]


def time_and_money(number: int, gpu: str = "H100") -> str:
    """The line that each lesson prints: how long it takes to work through, and what that costs on ``gpu``."""
    lesson = next(one for one in LESSONS if one.number == number)
    return (
        f"To work through: about {lesson.minutes_cpu} minutes on a machine without a GPU, for nothing; about "
        f"{lesson.minutes_gpu} minutes on one {gpu}, ${lesson_cost(lesson.minutes_gpu, gpu):.2f} at "
        f"${price_per_hour(gpu):.2f} an hour."
    )
