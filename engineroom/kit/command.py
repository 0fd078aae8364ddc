"""Run a command line: an error ends in a sentence, never in a traceback."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

import click
import typer

from engineroom.kit.errors import UserError
from engineroom.kit.files import home

USAGE, FAULT, INTERRUPTED = 2, 70, 130  # exit statuses: click's, EX_SOFTWARE of sysexits.h, 128 + SIGINT


def run(command: Callable[[], object]) -> None:
    """Call a typer application. Ends the process with status 2 after a UserError and 70 after a fault of the program.

    The traceback of a fault goes to a file in the logs folder; the person reads one line with its place.
    """
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; Python would complain about it at exit
        sys.exit(0)
    except Exception as error:
        print(f"error: {type(error).__name__}: {error}\n{_report()}", file=sys.stderr)
        sys.exit(FAULT)


def application(help: str | None, **settings: object) -> typer.Typer:
    """A typer application with the settings that all commands share."""
    return typer.Typer(help=help, pretty_exceptions_enable=False, add_completion=False, **settings)  # type: ignore[arg-type]


def _report() -> str:
    """Write the traceback of the exception that is handled now to a file, and say where it is."""
    try:
        path = home("logs") / f"fault-{time.strftime('%Y%m%dT%H%M%S')}.log"
        path.write_text(f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"The traceback could not be kept: {error}."
    return f"That is a fault of the program, not yours. Please report it with {path}."
