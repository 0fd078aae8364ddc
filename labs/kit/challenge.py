"""Open challenges: they have no single answer. A judge measures each attempt, and the bar rises with the best."""

from __future__ import annotations

import html
import math
from collections.abc import Awaitable
from dataclasses import dataclass

from engineroom.kit.errors import UserError
from labs.kit import progress
from labs.kit.show import show_html, verdict_html

STEP = 1.05  # the next bar is this many times the best attempt so far
COLOURS = {"BAR REACHED": "#1f7a46", "NOT YET": "#a85d00"}

__all__ = ["Challenge", "ChallengeResult", "Measurement"]


@dataclass(frozen=True)
class Measurement:
    """What a judge measured: `attempt` is the learner's value and `baseline` the lesson's, both in `unit`.

    `failure` says in a sentence what the attempt made worse, and is empty when the answers are as good as before.
    """

    attempt: float
    baseline: float
    unit: str
    lower_is_better: bool = True
    failure: str = ""

    @property
    def gain(self) -> float:
        """How many times as good as the baseline the attempt is; 0 when the attempt has no usable value."""
        better, worse = (
            (self.baseline, self.attempt) if self.lower_is_better else (self.attempt, self.baseline)
        )
        usable = math.isfinite(better) and math.isfinite(worse) and worse > 0
        return better / worse if usable else 0.0

    def __str__(self) -> str:
        return f"{self.attempt:.4g} {self.unit}; the baseline is {self.baseline:.4g}"


@dataclass(frozen=True)
class ChallengeResult:
    """The verdict on an attempt at a challenge; true when it reached the bar. `bar` is the bar that it had to reach."""

    verdict: str
    challenge: str
    message: str
    gain: float
    bar: float

    def __bool__(self) -> bool:
        return self.verdict == "BAR REACHED"

    def __str__(self) -> str:
        return f"{self.verdict} {self.challenge} — {self.message}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        message = html.escape(self.message, quote=False)
        return verdict_html(self.verdict, COLOURS[self.verdict], self.challenge, message)

    def _ipython_display_(self) -> None:
        """Display nothing: `Challenge.judge` has displayed the result already."""


@dataclass(frozen=True)
class Challenge:
    """An open challenge. `first_bar` is the gain over the baseline that the first successful attempt must reach."""

    id: str
    first_bar: float

    def bar(self) -> float:
        """The gain to reach now: `first_bar`, or a little above the best attempt so far."""
        return max(self.first_bar, STEP * progress.best_gain(self.id))

    async def judge(self, measuring: Awaitable[Measurement]) -> ChallengeResult:
        """Await a measurement, compare it with the bar, display the verdict and keep a new best in the progress file.

        An attempt that raises an exception gets the verdict NOT YET with its message.
        """
        bar, gain = self.bar(), 0.0
        try:
            measurement = await measuring
        except Exception as error:  # noqa: BLE001 (whatever the attempt raises is its verdict)
            verdict, message = "NOT YET", _describe(error)
        else:
            gain = 0.0 if measurement.failure else measurement.gain
            verdict, message = self._compare(measurement, bar)
        result = ChallengeResult(verdict, self.id, message, gain, bar)
        show_html(result._repr_html_(), plain=str(result))
        return result

    def _compare(self, measurement: Measurement, bar: float) -> tuple[str, str]:
        gain = measurement.gain
        if measurement.failure:
            return "NOT YET", f"{measurement.failure} No gain counts until that is mended."
        if gain < bar:
            return "NOT YET", f"{measurement}: {gain:.2f} times as good. The bar is {bar:.2f}."
        progress.record_gain(self.id, gain)
        return (
            "BAR REACHED",
            f"{measurement}: {gain:.2f} times as good. Your next bar is {STEP * gain:.2f}.",
        )


def _describe(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"The attempt raised {type(error).__name__}: {error}"
