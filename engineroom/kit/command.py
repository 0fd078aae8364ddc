"""Run a command line: an error ends in a sentence, never in a traceback, and nothing of the command goes on running."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from engineroom.kit import limits, prctl, signals, terminal, tmpdir
from engineroom.kit.errors import UserError

if TYPE_CHECKING:
    import typer

USAGE, FAULT, INTERRUPTED = 2, 70, 130  # exit statuses: click's, EX_SOFTWARE of sysexits.h, 128 + SIGINT
MACHINE = 1  # the output cannot be written, or the machine lacks something: click's
TERMINATED = 143  # 128 + SIGTERM


class CommandTarget(NamedTuple):
    """A command's typer application: its module, a line of help, and the name of one command in it, "" for all."""

    module: str
    help: str
    command: str = ""


def run(command: Callable[[], object]) -> NoReturn:
    """Call a typer application and end the process, with the children that it has left.

    The exit status is 2 after a UserError, 70 after an error of the program itself, 130 after Ctrl-C and 143 after
    SIGTERM and SIGHUP. The traceback of an error goes to a file in the logs folder; the terminal shows one line with
    its path. Standard streams that are closed are /dev/null to the command.
    """
    _open_closed_streams()
    terminal.use_utf8()
    terminal.replace_unprintable()
    limits.raise_open_files()
    signals.end_at_signals()
    prctl.set_subreaper()  # so that orphans of the command's children are seen at the end
    tmpdir.own_folder()
    status = _status(command)
    if signals.received is not None:
        status = _after_signal()
    signals.ignore()  # what remains is short, and must not be disturbed
    sys.exit(_flush(status))


def application(help: str | None, **settings: Any) -> typer.Typer:
    """Create a typer application with the settings that all commands share; ``settings`` are those of typer.Typer."""
    import typer

    return typer.Typer(help=help, pretty_exceptions_enable=False, add_completion=False, **settings)


def _status(command: Callable[[], object]) -> int:
    """Call the command, report its error, and return its exit status."""
    try:
        command()
        return 0
    except UserError as error:
        return _report(f"error: {error}", USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _report(end.code, 1 if end.code else 0)
    except BrokenPipeError:
        return MACHINE
    except Exception as error:  # noqa: BLE001 (the net below all commands; the traceback goes to a file)
        if signals.received is not None:  # a library has turned the interrupt into an error of its own
            return INTERRUPTED
        return _report_fault(error)


def _report_fault(error: Exception) -> int:
    from engineroom.kit.diagnose import (
        fault_of_machine,  # Ctrl-C during an import is caught inside of `run` alone
    )

    if fault := fault_of_machine(error):
        return _report(f"error: {fault}", MACHINE)
    return _report(f"error: {type(error).__name__}: {error}\n{_write_traceback()}", FAULT)


def _report(message: object, status: int) -> int:
    with suppress(OSError):  # nobody reads standard error
        if message:
            print(message, file=sys.stderr, flush=True)
    return status


def _after_signal() -> int:
    from engineroom.kit import children  # slow to import

    with suppress(KeyboardInterrupt, SystemExit):
        children.end_all()
    if signals.received == signal.SIGINT:
        return _report("Interrupted.", INTERRUPTED)
    return _report("Terminated.", TERMINATED)


def replace(program: list[str]) -> NoReturn:
    """Replace this process by another program, with nothing of the command left in it. Raises OSError."""
    tmpdir.release()
    prctl.set_subreaper(False)
    sys.stdout.flush()
    os.execv(program[0], program)  # noqa: S606


def _open_closed_streams() -> None:
    """Give a program without standard streams /dev/null: otherwise the next file that it opens takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which is this one
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115 (open until the end)


def _flush(status: int) -> int:
    """Write what is left in the buffer of standard output; return the exit status."""
    try:
        sys.stdout.flush()
        return status
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the end
        reader_has_ended = error.errno == errno.EPIPE
        message = "" if reader_has_ended else f"error: the output could not be written: {error.strerror}"
        return _report(message, status or MACHINE)


def _write_traceback() -> str:
    """Write the traceback of the exception that is being handled to a file; return a sentence with its path."""
    from engineroom.kit.files import home

    try:
        path = home("logs") / f"fault-{time.strftime('%Y%m%dT%H%M%S')}.log"
        path.write_text(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"The traceback could not be saved: {error}."
    return f"This is a bug in the program, not in your input. Please report it together with {path}."
