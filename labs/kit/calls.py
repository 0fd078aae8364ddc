"""Call a learner's function so that it can neither change the check's values, nor end it, nor run for ever."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isasyncgen, iscoroutine
from types import FrameType
from typing import Any

from labs.kit.requirements import Mistake
from labs.kit.values import plain, shown

DEADLINE = 30.0  # seconds for one check


class DeadlineExceeded(BaseException):
    """The check ran for longer than its deadline; no `except Exception` of a learner catches it."""


class LearnerFunction:
    """A learner's function as a check calls it: with copies of the arguments, returning scalars as plain Python.

    ``error`` is the exception that the last call raised.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.error: BaseException | None = None
        self.__name__: str = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *arguments: object, **keywords: object) -> Any:
        """Raises what the function raises; Mistake when it tries to end the program or is an ``async def``."""
        arguments, keywords = _copies((arguments, keywords))
        return self.call(*arguments, **keywords)

    def call(self, *arguments: object, **keywords: object) -> Any:
        """The same with the arguments themselves, for a check of what the function does to them."""
        try:
            output = self.function(*arguments, **keywords)
        except Exception as error:
            self.error = error
            raise
        except (KeyboardInterrupt, DeadlineExceeded):
            raise
        except BaseException as error:  # noqa: BLE001 (SystemExit, for instance: no answer may end the check)
            raise Mistake(
                f"`{self.__name__}` raised {type(error).__name__}. Return the answer instead."
            ) from None
        if iscoroutine(output) or isasyncgen(output):
            if iscoroutine(output):
                output.close()
            raise Mistake(
                f"`{self.__name__}` is an `async def`; the check calls it without `await`: write `def`."
            )
        return plain(output)


def _copies(values: Any) -> Any:
    """Deep copies that keep who refers to whom; the values themselves where they cannot be copied."""
    try:
        return copy.deepcopy(values)
    except Exception:  # noqa: BLE001 (locks, generators, open files)
        return values


def learner_value(value: object) -> Any:
    """Return a learner's value as a check works with it: functions as LearnerFunction, scalars plain."""
    return LearnerFunction(value) if callable(value) else plain(value)


def call_text(function: Callable[..., object], arguments: tuple[object, ...]) -> str:
    """Return the call as the learner would write it; long arguments are shortened."""
    return f"`{getattr(function, '__name__', 'function')}({', '.join(map(shown, arguments))})`"


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise DeadlineExceeded in the block after ``seconds``, and each second after that until the block ends.

    Works in the main thread, where notebooks run their cells; in another thread there is no deadline. A timer that
    runs already is suspended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise DeadlineExceeded

    handler = signal.signal(signal.SIGALRM, stop)
    suspended = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, *suspended)
