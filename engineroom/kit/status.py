"""One line of progress, in a notebook or on a terminal."""

from __future__ import annotations

import sys
import uuid


def in_notebook() -> bool:
    """Return True inside a Jupyter kernel, where HTML output is displayed."""
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel")


class StatusLine:
    """A line that is rewritten in place. Where the output cannot be rewritten, only the last text is printed."""

    def __init__(self) -> None:
        self._display_id = ""

    def show(self, text: str, *, last: bool = False) -> None:
        if in_notebook():
            from IPython.display import display

            exists = bool(self._display_id)
            self._display_id = self._display_id or uuid.uuid4().hex
            display({"text/plain": text}, raw=True, display_id=self._display_id, update=exists)
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text[:110]}", end="\n" if last else "", flush=True)
        elif last:
            print(text, flush=True)
