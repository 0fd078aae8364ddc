"""One line that says what is going on and rewrites itself, in a notebook or on a terminal."""

from __future__ import annotations

import sys


class StatusLine:
    """``show`` rewrites the line, ``done`` leaves it. Where nothing can be rewritten only ``done`` prints."""

    def __init__(self) -> None:
        self._handle = None
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython else None
        self._notebook = shell is not None and hasattr(shell, "kernel")

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
