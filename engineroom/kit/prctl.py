"""Two settings of prctl(2), which Python's standard library lacks: how a process relates to its parent and children."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h

_prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded now: a fork must not load libraries


def die_with_parent() -> None:
    """Let the kernel kill this process (SIGKILL) when the thread that started it ends. A fork does not inherit this.

    Call it in the child, right after the fork. Raises OSError when the kernel refuses.
    """
    _set(PR_SET_PDEATHSIG, signal.SIGKILL)


def set_subreaper(value: bool = True) -> None:
    """Become the parent of every orphan below this process, even after setsid or a double fork; False ends that.

    An exec keeps the setting, a child does not inherit it. Raises OSError when the kernel refuses.
    """
    _set(PR_SET_CHILD_SUBREAPER, int(value))


def _set(option: int, value: int) -> None:
    if _prctl(option, value):
        error_number = ctypes.get_errno()
        raise OSError(error_number, f"prctl({option}): {os.strerror(error_number)}")
