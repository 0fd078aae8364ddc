"""What belongs to the learner: their files, and answers that are not written yet."""

from __future__ import annotations

import dis
import os
import sysconfig
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).parents[2]
LIBRARIES = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
COURSE_CODE = (
    *(f"{ROOT / name}{os.sep}" for name in ("engineroom", "labs", "tools")),
    *LIBRARIES,
    "<frozen",
)  # any other file is the learner's
EMPTY_BODY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}  # bytecode that does nothing
EMPTY_BODY |= {"RETURN_GENERATOR", "POP_TOP", "CALL_INTRINSIC_1", "RERAISE"}  # of an `async def`


def is_learner_file(name: str) -> bool:
    """Return True for the file name of a cell or of any file outside the course and its libraries."""
    return not name.startswith(COURSE_CODE)


def is_unwritten(value: object) -> bool:
    """Return True for ``...``, None, and a function whose body is nothing more than that."""
    if not isinstance(value, FunctionType):
        return value is None or value is ...
    operations = {instruction.opname for instruction in dis.get_instructions(value)}
    return operations <= EMPTY_BODY and {*value.__code__.co_consts} <= {None, ..., value.__doc__}


def is_unfinished(value: object) -> bool:
    """Return True for ``...``, for a collection with ``...`` in it, and for a function that has ``...`` in its body."""
    if isinstance(value, FunctionType):
        return is_unwritten(value) or ... in value.__code__.co_consts
    if isinstance(value, dict):
        return any(item is ... for item in value.values())
    if isinstance(value, list | tuple):
        return any(item is ... for item in value)
    return value is ...
