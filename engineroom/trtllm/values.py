"""One flag, and a value made to fit it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Scalar = bool | int | float | str
Value = Scalar | list[Scalar] | list[list[Scalar]]
MISSING = object()  # a flag on a line that needs a value and has none


class Flag(BaseModel):
    """One flag: ``many`` takes several words, ``repeat`` may come again.

    ``bare`` is its value when no word follows, ``off`` the name that switches it off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: Literal["str", "path", "int", "float", "switch"]
    help: str
    default: Scalar | list[str] | None = None
    choices: list[str | int] = []
    aliases: list[str] = []
    required: bool = False
    min: int | None = None
    many: bool = False
    repeat: bool = False
    bare: str | None = None
    off: str | None = None


def typed(name: str, flag: Flag, value: object) -> Value:
    """``value`` in the flag's type. Raises ValueError with what the flag takes."""
    if flag.type == "switch":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is a switch and takes no value, not {value!r}. Give True or False.")
        return value
    if not (flag.many or flag.repeat):
        return _scalar(name, flag, value)
    if flag.many and flag.repeat:
        return [
            _words(name, flag, one)
            for one in (value if isinstance(value, list | tuple) and value else [value])
        ]
    return _words(name, flag, value if isinstance(value, list | tuple) else [value])


def _words(name: str, flag: Flag, value: object) -> list[Scalar]:
    words = [_scalar(name, flag, one) for one in value] if isinstance(value, list | tuple) else []
    if not words:
        raise ValueError(f"{name} takes lists of words, not {value!r}.")
    dashed = [
        word for word in words if flag.many and str(word).startswith("-") and flag.type in ("str", "path")
    ]
    if dashed:
        raise ValueError(f"{name}: the tool would read {dashed[0]!r} as a flag. Let it not start with '-'.")
    return words


def _scalar(name: str, flag: Flag, value: object) -> Scalar:
    allowed = (
        f"one of {', '.join(map(str, flag.choices))}" if flag.choices else f"a value of type {flag.type}"
    )
    if value is MISSING:
        raise ValueError(f"{name} needs a value: {allowed}.")
    if isinstance(value, bool) and "disable" in flag.choices:
        value = ("enable" if "enable" in flag.choices else "auto") if value else "disable"
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
            raise ValueError
        typed = {"int": int, "float": float}.get(flag.type, str)(str(value))
    except ValueError:
        raise ValueError(f"{name} takes {allowed}, not {value!r}.") from None
    if flag.choices and typed not in flag.choices:
        near = difflib.get_close_matches(str(typed), map(str, flag.choices), n=1)
        raise ValueError(
            f"{name} takes {allowed}, not {value!r}." + (f" Did you mean {near[0]}?" if near else "")
        )
    if flag.min is not None and float(typed) < flag.min:
        raise ValueError(f"{name} takes {flag.min} or more, not {value!r}.")
    return typed
