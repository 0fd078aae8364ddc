"""One flag, and the conversion of a value to its type."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Scalar = bool | int | float | str
FlagValue = Scalar | list[Scalar] | list[list[Scalar]]
MISSING = object()  # the value of a flag that needs one and has none on the command line


class ShellWord(str):
    """A word of a shell's text without its quotes; ``source`` is what stands in the text.

    ``expands`` is True for a word with a variable or a command in it: its value is not known here.
    """

    __slots__ = ("expands", "source")

    def __new__(cls, value: str, source: str, *, expands: bool = False) -> ShellWord:
        """The word ``value``, written as ``source``."""
        word = super().__new__(cls, value)
        word.source = source
        word.expands = expands
        return word

    def __str__(self) -> str:
        return self  # str() keeps the source


def expands(value: object) -> bool:
    """True for a word whose value the shell fills in."""
    return isinstance(value, ShellWord) and value.expands


class Flag(BaseModel):
    """One flag, in argparse's words: with ``nargs`` it takes several words, with ``repeat`` it may occur again.

    ``const`` is its value when no word follows, ``off`` the name of the flag that switches it off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["str", "path", "int", "float", "switch"]
    help: str
    default: Scalar | list[str] | None = None
    choices: list[str | int] = []
    aliases: list[str] = []
    required: bool = False
    min: int | None = None
    nargs: Literal["+"] | None = None
    repeat: bool = False
    const: str | None = None
    off: str | None = None


def convert_value(name: str, flag: Flag, value: object) -> FlagValue:
    """``value`` in the flag's type. Raises ValueError, which says what the flag takes."""
    if flag.type == "switch":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is a switch and takes no value, not {value!r}. Give True or False.")
        return value
    if not (flag.nargs or flag.repeat):
        return _scalar(name, flag, value)
    if flag.nargs and flag.repeat:
        occurrences = value if isinstance(value, list | tuple) and value else [value]
        return [_words(name, flag, words) for words in occurrences]
    return _words(name, flag, value if isinstance(value, list | tuple) else [value])


def _words(name: str, flag: Flag, value: object) -> list[Scalar]:
    words = [_scalar(name, flag, word) for word in value] if isinstance(value, list | tuple) else []
    if not words:
        raise ValueError(f"{name} takes lists of words, not {value!r}.")
    if flag.nargs and flag.type in ("str", "path"):
        dashed = [word for word in words if str(word).startswith("-")]
        if dashed:
            raise ValueError(
                f"{name}: the tool would read {dashed[0]!r} as a flag. It must not start with '-'."
            )
    return words


def _scalar(name: str, flag: Flag, value: object) -> Scalar:
    allowed = (
        f"one of {', '.join(map(str, flag.choices))}" if flag.choices else f"a value of type {flag.type}"
    )
    if value is MISSING:
        raise ValueError(f"{name} needs a value: {allowed}.")
    if isinstance(value, ShellWord) and value.expands:
        return value
    if isinstance(value, bool) and "disable" in flag.choices:
        value = _choice_for_switch(flag, value)
    scalar = _in_type(flag, value)
    if scalar is None:
        raise ValueError(f"{name} takes {allowed}, not {value!r}.")
    if flag.choices and scalar not in flag.choices:
        near = difflib.get_close_matches(str(scalar), map(str, flag.choices), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name} takes {allowed}, not {value!r}.{hint}")
    if flag.min is not None and not isinstance(scalar, str) and scalar < flag.min:
        raise ValueError(f"{name} takes {flag.min} or more, not {value!r}.")
    return scalar


def _choice_for_switch(flag: Flag, value: bool) -> str:
    """The word that stands for True or False where the tool wants a word."""
    if not value:
        return "disable"
    return "enable" if "enable" in flag.choices else "auto"


def _in_type(flag: Flag, value: object) -> int | float | str | None:
    """``value`` in the flag's type; None if it cannot be converted."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        return None
    try:
        if flag.type == "int":
            return int(str(value))
        return float(str(value)) if flag.type == "float" else str(value)
    except ValueError:
        return None
