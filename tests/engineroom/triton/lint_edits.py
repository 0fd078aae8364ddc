"""Single edits of a rendered repository, with what the check says of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Spoil = Callable[[Path], object]


def edit(old: str, new: str) -> Spoil:
    """Returns a function that replaces a pattern in a model's config.pbtxt, once."""

    def edit_config(model: Path) -> None:
        path = model / "config.pbtxt"
        text, count = re.subn(old, new, path.read_text(), count=1, flags=re.MULTILINE)
        assert count
        path.write_text(text)

    return edit_config


def set_parameter(key: str, value: str) -> Spoil:
    return edit(rf'(key: "{key}" value {{ string_value: )"[^"]*"', rf'\1"{value}"')


def add(text: str) -> Spoil:
    """Returns a function that appends a line to a model's config.pbtxt."""

    def append(model: Path) -> None:
        with (model / "config.pbtxt").open("a") as file:
            file.write(text + "\n")

    return append


def write(name: str, text: str) -> Spoil:
    return lambda model: (model / name).write_text(text)


def remove(name: str) -> Spoil:
    def delete(model: Path) -> None:
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return delete


@dataclass(frozen=True)
class Edit:
    """`expected`: what the check says, None where it finds nothing. `late`: the server loads it, and requests fail.

    `live`: whether the real server gets it too. Some edits of programs take it too long.
    """

    model: str
    spoil: Spoil
    expected: str | None
    late: bool = False
    live: bool = False
