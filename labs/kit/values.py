"""Turn a learner's values, of whatever library, into plain Python: numbers, lists and dictionaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from inspect import isroutine
from itertools import islice
from numbers import Complex, Integral, Real
from types import CoroutineType, EllipsisType, GeneratorType, SimpleNamespace
from typing import Any, SupportsFloat

LONGEST = 1_000_000  # elements of an iterator that is read into a list
SHOWN = 60  # characters of a value in a message


def plain(value: Any) -> Any:
    """Return a scalar as bool, int, float or str, and anything else as it is.

    Scalars are numbers of any library (NumPy, pandas, PyTorch, Fraction, Decimal) and arrays without a dimension; a
    timedelta is its seconds.
    """
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001 (a value that cannot be read, such as a tensor on the device `meta`)
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)  # also of numpy.str_ and of an Enum of texts
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _to_float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Complex):
        return value
    item = value.item() if getattr(value, "shape", None) == () else value
    if type(item) is not type(value):
        return plain(item)
    is_scalar = (
        isinstance(value, SupportsFloat) and not isinstance(value, type) and not hasattr(value, "__len__")
    )
    return _to_float(value) if is_scalar else value


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # noqa: BLE001 (a signalling NaN of Decimal, for instance)
        return math.nan


def is_number(value: object) -> bool:
    """Return True for an int or a float; a bool is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def to_list(value: Any) -> list[Any] | None:
    """Return the elements of a list, tuple, array, tensor, Series, generator, range or view of a dictionary.

    Scalars among them are plain. Returns None for anything else: texts, mappings, sets (they have no order), tables of
    several columns, and iterators of more than a million elements. Raises what a generator raises.
    """
    if isinstance(value, str | bytes | Mapping | set | frozenset) or callable(value):
        return None
    try:
        elements = _elements(value)
        result = list(islice(elements, LONGEST + 1))
    except Exception:
        if isinstance(value, Iterator):  # the learner's code
            raise
        return None
    return [plain(element) for element in result] if len(result) <= LONGEST else None


def _elements(value: Any) -> Iterable[Any]:
    """Raises TypeError for a value that has none."""
    if hasattr(value, "columns"):  # a table: pandas, polars
        (name,) = value.columns  # several: ValueError
        return value[name].tolist()
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def to_dict(value: Any) -> dict[Any, Any] | None:
    """Return a mapping, Series, table of one row, named tuple, dataclass or namespace as a dictionary, else None.

    Scalars among its keys and values are plain.
    """
    try:
        mapping = _mapping(value)
        if not (hasattr(mapping, "keys") and hasattr(mapping, "__getitem__")):
            return None
        return {plain(key): plain(mapping[key]) for key in mapping.keys()}  # noqa: SIM118 (not every mapping is a dict)
    except Exception:  # noqa: BLE001 (a value that only looks like a mapping)
        return None


def _mapping(value: Any) -> Any:
    """What has the keys and the values of ``value``, which may be no mapping itself."""
    if isinstance(value, type):
        return None
    if hasattr(value, "_asdict"):  # a named tuple
        return value._asdict()
    if is_dataclass(value):
        return {
            field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)
        }
    if isinstance(value, SimpleNamespace):
        return vars(value)
    if hasattr(value, "columns") and hasattr(value, "iloc"):  # a table of pandas
        return value.iloc[0] if len(value) == 1 else None
    return value


def shown(value: object) -> str:
    """Return ``value`` as the learner would write it or see it printed, shortened, in one line."""
    if value is ...:
        return "`...`"
    if isinstance(value, CoroutineType):
        return "a coroutine, which an `await` is missing for"
    if isinstance(value, GeneratorType):
        return "a generator"
    if isroutine(value):
        return f"the function `{value.__name__}`"
    try:
        scalar = plain(value)
        is_foreign_number = is_number(scalar) and not isinstance(value, int | float)
        text = str(value) if is_foreign_number and not hasattr(value, "shape") else repr(scalar)
    except Exception:  # noqa: BLE001 (a value whose repr fails still needs a name)
        text = f"an object of type {type_name(value)}"
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def type_name(value: object) -> str:
    """Return the name of the type for a message: `...`, None, float (also of numpy.float32), list."""
    if value is None or isinstance(value, EllipsisType):
        return "None" if value is None else "`...`"
    scalar = plain(value)
    return type(scalar if is_number(scalar) or isinstance(scalar, str) else value).__name__
