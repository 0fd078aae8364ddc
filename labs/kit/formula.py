"""Judge a formula: the learner's function and the right one on several inputs, and wrong formulas beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from labs.kit.requirements import Mistake, close, require_number

Formula = Callable[..., float]
Inputs = Mapping[str, tuple[object, ...]]  # what an input is, for a message -> arguments
Mistakes = Sequence[tuple[Formula, str]]  # a wrong formula, and the hint that names the mistake


def require_formula(
    function: Formula, reference: Formula, inputs: Inputs, *hints: str, mistakes: Mistakes = ()
) -> None:
    """Raise Mistake unless ``function`` agrees with ``reference`` in three significant digits on all ``inputs``.

    Where ``function`` is wrong and agrees with one of ``mistakes``, the hint is that mistake's. Choose inputs on which
    right and wrong formulas differ: several, of different sizes, no round numbers. A function that drops fractions,
    reverses the sign or returns a constant is named without an entry. ``hints`` follow the numbers of the first wrong
    output.
    """
    expected = {name: reference(*arguments) for name, arguments in inputs.items()}
    outputs = {
        name: require_number(function(*arguments), subject=f"For {name} the function")
        for name, arguments in inputs.items()
    }
    wrong = [name for name in inputs if not close(outputs[name], expected[name])]
    if not wrong:
        return
    for formula, hint in mistakes:
        if all(close(outputs[name], formula(*inputs[name])) for name in wrong):
            raise Mistake(hint, *hints[1:])
    name = wrong[0]
    nudge = _common_mistake(outputs, expected, wrong) or (hints[0] if hints else "")
    numbers = f"For {name} I expected {expected[name]:.4g}, got {outputs[name]:.4g}."
    raise Mistake(f"{numbers} {nudge}".strip(), *hints[1:])


def _common_mistake(outputs: Mapping[str, float], expected: Mapping[str, float], wrong: Sequence[str]) -> str:
    """A mistake that any formula may have, "" when it is none of these."""
    values = list(outputs.values())
    if len(values) > 1 and len(set(values)) == 1 and len(set(expected.values())) > 1:
        return "The function returns the same for every input: does it use its arguments?"
    if any(math.isnan(value) or math.isinf(value) for value in values):
        return ""
    if all(outputs[name] == -expected[name] for name in wrong):
        return "The sign is reversed."
    if all(outputs[name] == math.floor(expected[name]) for name in wrong):
        return "The fraction is lost: `//` and `int()` drop it. Divide with `/`."
    if all(outputs[name] == round(expected[name]) for name in wrong):
        return "It is rounded to a whole number; return it with its fraction."
    return ""
