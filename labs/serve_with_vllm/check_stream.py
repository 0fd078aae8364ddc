"""The parts of the check of exercise 01.streaming: the learner's times against what the HTTP client noted."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite

from labs.kit.check import Mistake, require, require_number, require_sequence
from labs.serve_with_vllm.wire import WireFacts


def check_stream(times: object, wire: WireFacts) -> None:
    """Raise Mistake unless ``times`` are seconds from sending to each piece of text."""
    listed = "I expected a list of seconds, got {type}. Append one number for each piece of text."
    seconds = [
        require_number(value, subject="One entry of the list") for value in require_sequence(times, listed)
    ]
    require(all(map(isfinite, seconds)), "One entry of the list is no moment in time: {value}.")
    _check_count(len(seconds), wire)
    _check_unit(seconds, wire)
    require(
        all(later >= earlier for earlier, later in pairwise(seconds)),
        "The numbers go down: they look like gaps between tokens. Note the seconds since sending for each token.",
    )
    _check_spread(seconds, wire)
    _check_start(seconds, wire)


def _check_count(num_times: int, wire: WireFacts) -> None:
    """One time for each piece of text. A busy server sends several tokens in one piece."""
    require(
        num_times,
        "The list is empty: no piece of text was noted. Is the append inside the loop?",
    )
    require(
        wire.tokens, "The server has generated no token since this cell began: send the request in this cell."
    )
    fewest = wire.pieces / 2 if wire.pieces else min(wire.tokens, 4)
    max_times = 2 * (wire.pieces or wire.tokens)
    arrived = (
        f"{wire.pieces} pieces of text arrived"
        if wire.pieces
        else f"The server generated {wire.tokens:.0f} tokens"
    )
    require(
        num_times > 1 or fewest <= 1,
        "Only 1 time: this answer has more tokens. Did you set `stream=True`, and append in the loop?",
    )
    times = f"the list has {num_times} {'time' if num_times == 1 else 'times'}"
    require(num_times >= fewest, f"{arrived}, and {times}. Append for each piece of text.")
    require(
        num_times <= max_times,
        f"{arrived}, and {times}. Begin with an empty list, and append once for each piece of text.",
    )


def _check_unit(seconds: list[float], wire: WireFacts) -> None:
    """No answer to a request of this cell took longer than the cell."""
    longest = wire.elapsed if wire.last is None else wire.last
    span = seconds[-1] - seconds[0]
    require(
        span <= 2 * longest or span < 0,
        f"The last number is {seconds[-1]:.4g}, but the answer took {longest:.2g} seconds. Those are milliseconds, or "
        "smaller: `time.perf_counter()` counts seconds.",
    )
    require(
        0 <= seconds[0] <= max(wire.elapsed, longest),
        "The first number is a clock reading, not a waiting time: subtract the moment of sending from each.",
        "Take `sent = time.perf_counter()` before the request, and append `time.perf_counter() - sent`.",
    )


def _check_spread(seconds: list[float], wire: WireFacts) -> None:
    span = seconds[-1] - seconds[0]
    decoding = 0.0 if wire.last is None or wire.first is None else wire.last - wire.first
    require(
        seconds[-1] >= decoding / 2,
        f"The last number is {seconds[-1]:.2g}, but the answer took {wire.last or 0:.2g} seconds. Those are gaps "
        "between tokens: note the seconds since **sending** for each token.",
    )
    require(
        span > max(1e-4, 0.05 * decoding),
        "All tokens arrive at once: you took the times after the stream had ended. Note each one inside the loop.",
    )


def _check_start(seconds: list[float], wire: WireFacts) -> None:
    """The learner's clock started before the request left: no token was noted before its bytes arrived."""
    first = seconds[0]
    if wire.first is None or wire.headers is None or first + _rounding(seconds) >= wire.first:
        return
    create = "`create()` returns when the server has begun to answer, not when it has sent a token."
    require(
        first > (wire.first - wire.headers) / 2,
        "Your clock starts at the first token, so the longest wait is missing. Take the time before you send.",
        "`sent = time.perf_counter()` is the line before the `for`.",
    )
    raise Mistake(
        f"Your first token came after {first:.4f} s, but its bytes arrived {wire.first:.4f} s after sending: your "
        f"clock starts too late. {create}",
        "Take `sent = time.perf_counter()` before you call `create()`.",
    )


def _rounding(seconds: list[float]) -> float:
    """Half a unit of the last decimal of all: by how much each may have been rounded down."""
    decimals = [17 if "e" in repr(value) else len(repr(value).partition(".")[2]) for value in seconds]
    return 0.5 * 10.0 ** -max(decimals)
