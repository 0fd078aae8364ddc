"""One line of progress, in a notebook or on a terminal."""

from __future__ import annotations

import sys
import uuid


def in_notebook() -> bool:
    """True inside a Jupyter kernel, where a display with HTML is seen."""
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel")


class StatusLine:
    """One line that rewrites itself. Where nothing can be rewritten only the last one is printed."""

    def __init__(self) -> None:
        self._id = ""

    def show(self, text: str, *, last: bool = False) -> None:
        if in_notebook():
            from IPython.display import display

            known, self._id = bool(self._id), self._id or uuid.uuid4().hex
            display({"text/plain": text}, raw=True, display_id=self._id, update=known)
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text[:110]}", end="\n" if last else "", flush=True)
        elif last:
            print(text, flush=True)
