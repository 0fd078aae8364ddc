"""How a command ends at a signal: SIGINT, SIGTERM and SIGHUP unwind it like an error, so that every `finally` runs.

A signal that is ignored at the start stays ignored, as nohup and shells' background jobs require.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LATER = 0.05  # seconds after which a signal is sent again that a destructor has swallowed
received: int | None = None  # the first of the signals that arrived


def end_at_signals() -> None:
    """Install the handlers. SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise SystemExit(143).

    A second SIGTERM or SIGHUP does not disturb the clean-up that the first has begun; a second SIGINT does.
    """
    for number, handler in zip(SIGNALS, (_interrupt, _terminate, _hang_up), strict=True):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, handler)
    sys.unraisablehook = _send_again


@contextmanager
def shield_children() -> Iterator[None]:
    """Keep Ctrl-C from the processes that the block starts: this process ends them, and they print nothing of it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ignore() -> None:
    """Ignore these signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global received
    received = received or number
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    global received
    if received is None:
        received = number
        raise SystemExit(128 + number)


def _hang_up(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)  # for its present handler, which may be uvicorn's


def _send_again(unraisable: Any) -> None:
    """Python drops an exception in a destructor or a callback; a dropped signal has to be sent again."""
    global received
    if received is None or not isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(unraisable)
        return
    number, received = received, None
    threading.Timer(LATER, os.kill, (os.getpid(), number)).start()
