"""Named ranges of the engine's host code, for a profiler. Off, they cost a call that returns a shared object.

The profiler decides what a range is: torch.profiler.record_function for a Chrome trace, torch.cuda.nvtx.range for
Nsight Systems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
MakeRange = Callable[[str], AbstractContextManager[object]]

_off = nullcontext()
_make_range: MakeRange | None = None


def span(name: str) -> AbstractContextManager[object]:
    """A range with this name while `spans` is active, else a context that does nothing."""
    return _make_range(name) if _make_range else _off


def spanned(
    name: str,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorate a function whose calls are ranges with this name."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
            with span(name):
                return function(*arguments, **options)

        return call

    return decorate


@contextmanager
def spans(make_range: MakeRange) -> Iterator[None]:
    """Make ranges with `make_range` in this process, in all threads, until the context ends."""
    global _make_range
    previous, _make_range = _make_range, make_range
    try:
        yield
    finally:
        _make_range = previous
