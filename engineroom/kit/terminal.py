"""Text in and out of a command: UTF-8 in files whatever the locale is, and no error for what a terminal cannot show."""

from __future__ import annotations

import io
import locale
import os
import sys


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, unless files are read and written as UTF-8 already.

    What is printed keeps the encoding of the terminal.
    """
    encoding = locale.getencoding()
    if sys.flags.utf8_mode or encoding.lower().replace("-", "") == "utf8" or not sys.orig_argv[1:]:
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:replace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def replace_unprintable() -> None:
    """Print a question mark for each character that standard output or standard error cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
