"""What a check requires of an answer: each function raises Mistake with a hint, and returns the answer plain."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from labs.kit.values import is_number, plain, shown, to_dict, to_list

TOLERANCE = 5e-3  # relative: numbers that agree in three significant digits do not differ by more


class Mistake(Exception):
    """Hints, from a nudge to nearly the answer.

    In a hint, ``{type}`` and ``{value}`` stand for those of the first value checked.
    """


def require(condition: object, *hints: str) -> None:
    """Raise Mistake with these hints unless ``condition`` is true."""
    if not condition:
        raise Mistake(*hints)


def require_function(value: object, name: str) -> None:
    """Raise Mistake unless ``value``, the first argument of the check, can be called."""
    require(callable(value), f"I expected the function `{name}`, got {{type}}. Pass it uncalled.")


def close(value: object, expected: float, tolerance: float = TOLERANCE) -> bool:
    """Return True when ``value`` is a number that agrees with ``expected`` in three significant digits.

    NaN agrees with nothing, an infinity only with itself.
    """
    number = plain(value)
    if not is_number(number):
        return False
    return math.isclose(_finite(number), expected, rel_tol=tolerance, abs_tol=1e-12)


def _finite(number: float) -> float:
    """``number`` as a float; an int beyond the floats is an infinity."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def require_number(
    output: object, mistakes: Mapping[float, str] = MappingProxyType({}), subject: str = "The function"
) -> float:
    """Return ``output``, the return value of the learner's function, as an int or a float.

    Raises Mistake when it is no number, and when it is close to a key of ``mistakes``, which maps the outputs of
    typical wrong answers to hints. ``subject`` begins the sentence: "`f(2)`", or "`tpot`".
    """
    number = plain(output)
    if output is None or output is ...:
        raise Mistake(f"{subject} gave {shown(output)}, not a number. Does it `return` on every path?")
    if not is_number(number):
        raise Mistake(f"{subject} gave {shown(output)}, not a number.{_advice(output)}")
    if isinstance(number, int) and math.isinf(_finite(number)):
        number = _finite(number)
    for value, hint in mistakes.items():
        require(not close(number, value, 1e-3), hint)
    return number


def _advice(output: object) -> str:
    if isinstance(output, str):
        return " That is text: return the number itself."
    return " Return the number, without a list around it." if to_list(output) is not None else ""


def require_whole_number(name: str, value: object, at_least: int = 0) -> int:
    """Return ``value`` as an int: 4, 4.0 and numpy.int64(4) are whole. Raises Mistake for anything else."""
    number = plain(value)
    if not is_number(number) or not math.isfinite(_finite(number)) or number != int(number):
        raise Mistake(f"`{name}` must be a whole number, not {shown(value)}.")
    require(number >= at_least, f"`{name}` is {shown(value)}; it must be {at_least} or more.")
    return int(number)


def require_sequence(output: object, hint: str) -> list[Any]:
    """Return ``output`` as a list, whatever library its sequence is of; scalars in it are plain.

    Raises Mistake with ``hint`` when it is none: for numbers, texts, sets and mappings.
    """
    elements = to_list(output)
    if elements is None:
        raise Mistake(hint)
    return elements


def require_mapping(output: object, hint: str) -> dict[Any, Any]:
    """Return ``output`` as a dictionary, whatever library its mapping is of; scalars in it are plain.

    Raises Mistake with ``hint`` when it is none.
    """
    entries = to_dict(output)
    if entries is None:
        raise Mistake(hint)
    return entries


def require_names(values: object, names: Collection[str]) -> dict[str, Any]:
    """Return ``values``, the first argument of the check, as a dictionary with a value for each name.

    Raises Mistake when names are missing or superfluous, or when a value is not written yet.
    """
    expected = f"I expected a dictionary with {', '.join(names)}"
    entries = require_mapping(values, f"{expected}, got {{type}}.")
    missing = [name for name in names if name not in entries]
    require(not missing, f"{expected}; yours has no {', '.join(missing)}.")
    unknown = [shown(name) for name in entries if name not in names]
    require(not unknown, f"{expected}; yours also has {', '.join(unknown)}: take it out.")
    empty = [name for name, value in entries.items() if value is ... or value is None]
    require(not empty, f"Still `...`: {', '.join(empty)}.")
    return entries


def difference(expected: object, answer: object) -> str:
    """Return " I expected 4, got 5.", or "" when the two look the same in print."""
    expected_text, answer_text = shown(expected), shown(answer)
    if expected_text == answer_text:
        return ""
    return f" I expected {expected_text}, got {answer_text}."
