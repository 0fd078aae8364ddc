"""Judge a formula: the learner's function and the right one on several inputs, and wrong formulas beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labs.kit.requirements import TOLERANCE, Mistake, close, require_number

Formula = Callable[..., Any]  # returns a number
Range = tuple[float, float]  # the least and the greatest right number
Inputs = Mapping[str, tuple[object, ...]]  # what an input is, for a message -> arguments
Mistakes = Sequence[tuple[Formula, str]]  # a wrong formula, and the hint that names the mistake


@dataclass(frozen=True)
class FormulaCheck:
    """What a formula is judged by; see ``require_formula``."""

    reference: Callable[..., float | Range]
    inputs: Inputs
    hints: tuple[str, ...]
    mistakes: Mistakes
    subject: str

    def judge(self, function: Formula) -> None:
        """Raise Mistake unless ``function`` is right."""
        expected = {name: _range(self.reference(*arguments)) for name, arguments in self.inputs.items()}
        outputs = {
            name: require_number(function(*arguments), subject=f"For {name} {self.subject}")
            for name, arguments in self.inputs.items()
        }
        wrong = [name for name in self.inputs if not _within(outputs[name], expected[name])]
        if wrong:
            raise self._name(outputs, expected, wrong)

    def _name(
        self, outputs: Mapping[str, float], expected: Mapping[str, Range], wrong: Sequence[str]
    ) -> Mistake:
        for formula, hint in self.mistakes:
            if all(close(outputs[name], formula(*self.inputs[name])) for name in wrong):
                return Mistake(hint, *self.hints[1:])
        name, nudge = wrong[0], _common_mistake(outputs, expected, wrong) or "".join(self.hints[:1])
        numbers = (
            f"For {name} {self.subject} should be {_text(expected[name])}, and is {_number(outputs[name])}."
        )
        return Mistake(f"{numbers} {nudge}".strip(), *self.hints[1:])


def require_formula(
    function: Formula,
    reference: Callable[..., float | Range],
    inputs: Inputs,
    *hints: str,
    mistakes: Mistakes = (),
    subject: str = "the function",
) -> None:
    """Raise Mistake unless ``function`` agrees with ``reference`` in three significant digits on all ``inputs``.

    ``reference`` returns a number, or the least and the greatest right one. Where ``function`` is wrong and agrees with
    one of ``mistakes``, the hint is that mistake's. Choose inputs on which right and wrong formulas differ: several, of
    different sizes, no round numbers. A function that drops fractions, reverses the sign or returns a constant is named
    without an entry. ``hints`` follow the numbers of the first wrong output. ``subject`` is what the formula computes,
    in a sentence: "`tpot`".
    """
    FormulaCheck(reference, inputs, hints, mistakes, subject).judge(function)


def _range(expected: float | Range) -> Range:
    return expected if isinstance(expected, tuple) else (expected, expected)


def _within(output: float, bounds: Range) -> bool:
    low, high = bounds
    return low <= output <= high or close(output, low, TOLERANCE) or close(output, high, TOLERANCE)


def _text(bounds: Range) -> str:
    low, high = bounds
    return _number(low) if low == high else f"between {_number(low)} and {_number(high)}"


def _number(value: float) -> str:
    """Four significant digits; as many as needed for a whole number below a million."""
    return f"{value:.0f}" if abs(value) < 1e6 and value == int(value) else f"{value:.4g}"


def _common_mistake(outputs: Mapping[str, float], ranges: Mapping[str, Range], wrong: Sequence[str]) -> str:
    """A mistake that any formula may have, "" when it is none of these."""
    if len(outputs) > 1 and len(set(outputs.values())) == 1 and len(set(ranges.values())) > 1:
        return "The result is the same for every input: is every argument used?"
    if not all(map(math.isfinite, outputs.values())):
        return ""
    pairs = [(outputs[name], ranges[name][0]) for name in wrong]
    if all(close(output, -expected) for output, expected in pairs):
        return "The sign is reversed."
    if all(output == math.floor(expected) for output, expected in pairs):
        return "The fraction is lost: `//` and `int()` drop it. Divide with `/`."
    if all(output == round(expected) for output, expected in pairs):
        return "It is rounded to a whole number: return it with its fraction."
    return ""
