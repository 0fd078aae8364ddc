"""Run a command line: an error ends in a sentence, never in a traceback."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import typer

from engineroom.kit.errors import UserError
from engineroom.kit.files import home

USAGE, FAULT, INTERRUPTED = 2, 70, 130  # exit statuses: click's, EX_SOFTWARE of sysexits.h, 128 + SIGINT


def run(command: Callable[[], object]) -> None:
    """Call a typer application and end the process.

    The exit status is 2 after a UserError, 70 after an error of the program itself and 130 after Ctrl-C. The
    traceback of such an error goes to a file in the logs folder; the terminal shows one line with its path.
    """
    try:
        command()
    except UserError as error:
        _end(f"error: {error}", USAGE)
    except KeyboardInterrupt:
        _end("Interrupted.", INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer turns Ctrl-C into this status and prints nothing
            print("Interrupted.", file=sys.stderr)
        raise
    except Exception as error:  # noqa: BLE001 (the net below all commands; the traceback goes to a file)
        _end(f"error: {type(error).__name__}: {error}\n{_write_traceback()}", FAULT)


def application(help: str | None, **settings: Any) -> typer.Typer:
    """Create a typer application with the settings that all commands share; ``settings`` are those of typer.Typer."""
    return typer.Typer(help=help, pretty_exceptions_enable=False, add_completion=False, **settings)


def _end(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


def _write_traceback() -> str:
    """Write the traceback of the exception that is being handled to a file; return a sentence with its path."""
    try:
        path = home("logs") / f"fault-{time.strftime('%Y%m%dT%H%M%S')}.log"
        path.write_text(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"The traceback could not be saved: {error}."
    return f"This is a bug in the program, not in your input. Please report it together with {path}."
