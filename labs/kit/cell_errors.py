"""Errors in a notebook's cell: one short message with the learner's line in place of a traceback of thirty."""

from __future__ import annotations

import ast
import asyncio
import linecache
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from engineroom.kit.errors import UserError
from labs.kit.cells import find_origin, lesson_cells, open_notebook, parse
from labs.kit.learner import is_learner_file, is_unfinished

VARIABLE = "ENGINEROOM_TRACEBACK"  # "full": IPython's own tracebacks, for authors
ALL_OF_IT = "(`%tb` shows the whole traceback.)"
INTERRUPTS = (KeyboardInterrupt, asyncio.CancelledError)  # a cell that awaits is cancelled instead


def install() -> None:
    """Shorten the errors of this kernel's cells from now on. Does nothing outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and os.environ.get(VARIABLE) != "full":
        shell.set_custom_exc((Exception, *INTERRUPTS), _show)
        _wake_loop_on_signals()


def _wake_loop_on_signals() -> None:
    """Let Jupyter's stop button end a cell that awaits at once.

    ipykernel's handler of SIGINT schedules a callback, which does not wake an event loop that waits for input. A loop
    that handles any signal is woken by all of them.
    """
    with suppress(RuntimeError, ValueError):  # no loop runs, as in a terminal, or not in the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGURG, lambda: None)


def _show(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None,
) -> None:
    """Display an error as IPython does: front ends and nbval still get an error output. Called by IPython."""
    from IPython.core.error import UsageError

    if isinstance(error, SyntaxError | UsageError):
        shell.showtraceback((kind, error, trace))  # short already
        return
    shell._get_exc_info((kind, error, trace))  # what %tb shows
    render = getattr(error, "_render_traceback_", None)  # IPython's way for an error to describe itself
    shell._showtraceback(kind, error, render() if render else [describe(error, trace)])


def describe(error: BaseException, trace: TracebackType | None) -> str:
    """One line: what went wrong, in which line of the learner, and what to do about it when that is known."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        trace = error.__traceback__ or trace
    place = learner_line(trace)
    if isinstance(error, INTERRUPTS):
        return f"Interrupted{place}."
    advice = unfinished_advice(error, trace)
    this_is = f"This is{place[1:].removeprefix(' in')}." if place else ""
    if advice and isinstance(error, NameError):
        return f"{advice} {this_is} {ALL_OF_IT}"
    if isinstance(error, UserError):
        text = f"{error} {this_is}".strip()
    else:
        text = f"{traceback.format_exception_only(error)[-1].strip().rstrip('.')}{place}."
    return " ".join(part for part in (text, advice, ALL_OF_IT) if part)


Position = tuple[FrameType, int]  # a frame and the number of the line that it executes


def _learner_frames(trace: TracebackType | None) -> list[Position]:
    """The learner's frames, outermost first."""
    frames = traceback.walk_tb(trace)
    return [(frame, number) for frame, number in frames if is_learner_file(frame.f_code.co_filename)]


def learner_line(trace: TracebackType | None) -> str:
    """The innermost line of the learner: ", in `f`, line 3 of In[2]: `return 1 / 0`"; "" when there is none."""
    frames = _learner_frames(trace)
    if not frames:
        return ""
    frame, number = frames[-1]
    file_name = frame.f_code.co_filename
    line = linecache.getline(file_name, number).strip()
    functions = [name for name in frame.f_code.co_qualname.split(".") if not name.startswith("<")]
    function = f"`{functions[-1]}`, " if functions else ""
    is_elsewhere = file_name != frames[0][0].f_code.co_filename or "ipykernel" not in file_name
    file = f" of {_cell_or_file(file_name)}" if is_elsewhere else ""
    return f", in {function}line {number}{file}" + (f": `{line}`" if line else "")


def _cell_or_file(file_name: str) -> str:
    """In[3] for a cell's file, else the name of the file."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    label = shell.compile.format_code_name(file_name) if shell else None
    return label[1] if label else Path(file_name).name


def unfinished_advice(error: BaseException, trace: TracebackType | None) -> str:
    """What to do when a name on the learner's lines is missing or not written yet; "" otherwise."""
    frames = _learner_frames(trace)
    if not frames:
        return ""
    if isinstance(error, NameError):
        return _advice([error.name] if error.name else [], frames[0][0])
    lines = {
        (frame.f_code, number): frame for frame, number in reversed(frames)
    }  # once for each line of a recursion
    unfinished = [name for (_, number), frame in lines.items() for name in _unfinished_names(frame, number)]
    advice = _advice(unfinished, frames[0][0])
    if unfinished and not advice and "ellipsis" in str(error):
        return f"`{unfinished[0]}` is not written yet."
    return advice


def _advice(names: list[str], cell_frame: FrameType) -> str:
    """How to get the first of the names that a cell of the lesson defines."""
    if not names:
        return ""
    source = "".join(linecache.getlines(cell_frame.f_code.co_filename))
    cells = lesson_cells(open_notebook(cell_frame.f_globals), source)
    for name in names:
        cell = find_origin(name, cells, cell_frame.f_globals)
        if cell:
            state = "written" if name in cell.names and cell.exercise else "defined"
            return f"`{name}` is not {state} yet: {cell.advice}."
    return ""


def _unfinished_names(frame: FrameType, number: int) -> list[str]:
    """The names in the statement that the frame executes, and in the whole of a function, that are unfinished."""
    names = _statement_names(frame, number)
    if not frame.f_code.co_name.startswith("<"):
        names += _code_names(frame.f_code)
    return [name for name in names if is_unfinished(frame.f_globals.get(name))]


def _code_names(code: CodeType) -> list[str]:
    """The names that a function and the comprehensions in it look up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [*code.co_names, *(name for constant in inner for name in _code_names(constant))]


def _statement_names(frame: FrameType, number: int) -> list[str]:
    module = parse("".join(linecache.getlines(frame.f_code.co_filename)))
    statements = [
        node
        for node in ast.walk(module or ast.Module([], []))
        if isinstance(node, ast.stmt) and node.lineno <= number <= (node.end_lineno or node.lineno)
    ]
    innermost = min(statements, key=lambda node: (node.end_lineno or 0) - node.lineno, default=None)
    nodes = ast.walk(innermost) if innermost else ()
    return [node.id for node in nodes if isinstance(node, ast.Name)]
