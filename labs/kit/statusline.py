"""One line that says what is going on and rewrites itself, in a notebook or on a terminal."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """True inside a Jupyter kernel, where a display with HTML is seen."""
    ipython = sys.modules.get("IPython")
    return bool(ipython) and hasattr(ipython.get_ipython(), "kernel")


class StatusLine:
    """``show`` rewrites the line, ``done`` leaves it. Where nothing can be rewritten only ``done`` prints."""

    def __init__(self) -> None:
        self._handle = None
        self._notebook = in_notebook()

    def show(self, text: str) -> None:
        text = text[:110]
        if self._notebook:
            self._display({"text/plain": text})
        elif sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)

    def done(self, text: str) -> None:
        if self._notebook:
            self._display({"text/plain": text})
        else:
            print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, flush=True)

    def _display(self, bundle: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
