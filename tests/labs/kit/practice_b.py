"""The checks of a second lesson: one that accepts everything, one with a bug."""

from __future__ import annotations

from labs.kit.check import exercise


@exercise("02.lenient", version=1, title="Anything goes", minutes=1)
def lenient(value: object) -> None:
    pass


@exercise("02.broken", version=1, title="A check with a bug", minutes=1)
def broken(value: object) -> None:
    raise KeyError("oops")
