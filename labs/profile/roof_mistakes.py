"""Wrong formulas of the roof and of the share of it, each with the hint that names its mistake."""

from __future__ import annotations

from labs.profile.formulas import attainable, share_of_roof
from labs.profile.mistakes import WrongFormulas

ATTAINABLE: WrongFormulas = [
    (
        lambda ops, size, bandwidth, rate: rate,
        "That is the flat ceiling, also where memory binds. Take the lower of the two ceilings.",
    ),
    (
        lambda ops, size, bandwidth, rate: ops / size * bandwidth,
        "That is the sloping ceiling, also where the matrix rate binds. Take the lower of the two ceilings.",
    ),
    (
        lambda ops, size, bandwidth, rate: max(rate, ops / size * bandwidth),
        "You took the higher ceiling. The lower one binds: `min`.",
    ),
    (
        lambda ops, size, bandwidth, rate: max(ops / rate, size / bandwidth),
        "Those are seconds: the shortest time of the step. Return a rate, in operations per second.",
    ),
    (
        lambda ops, size, bandwidth, rate: ops / (ops / rate + size / bandwidth),
        "You added the two times. A perfect kernel computes while it reads: the longer of the two counts.",
    ),
    (
        lambda ops, size, bandwidth, rate: min(rate, size / ops * bandwidth),
        "Your intensity is upside down: it is operations / bytes.",
    ),
    (
        lambda ops, size, bandwidth, rate: min(rate, bandwidth),
        "You compare operations per second with bytes per second. Multiply the bandwidth by the intensity first.",
    ),
    (
        lambda ops, size, bandwidth, rate: ops / size,
        "That is the intensity, in operations per byte. What rate does the machine reach at this intensity?",
    ),
    (
        lambda ops, size, bandwidth, rate: min(rate, ops / size * bandwidth) / rate,
        "That is a share of the matrix rate. Return the attainable rate itself.",
    ),
    (
        lambda ops, size, bandwidth, rate: (rate + ops / size * bandwidth) / 2,
        "That is the mean of the two ceilings. The lower one binds.",
    ),
]

SHARE: WrongFormulas = [
    (
        lambda ops, size, seconds, bandwidth, rate: 1 / share_of_roof(ops, size, seconds, bandwidth, rate),
        "That is upside down: how many times slower than the roof the step is. The share is measured / attainable.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: 100 * share_of_roof(ops, size, seconds, bandwidth, rate),
        "Those are per cent. Return a share: 1 for a step on the roof.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: ops / seconds / rate,
        "You compare with the matrix rate alone. Where memory binds, the roof is lower: use `attainable`.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: size / seconds / bandwidth,
        "You compare with the bandwidth alone. Where the matrix rate binds, the roof is the flat part: use "
        "`attainable`.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: ops / attainable(ops, size, bandwidth, rate),
        "Those are the seconds of a step on the roof. Divide them by the seconds that the step took.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: ops / seconds,
        "That is the measured rate. As a share of the attainable rate?",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: attainable(ops, size, bandwidth, rate),
        "That is the attainable rate. What share of it did the step reach?",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: ops * seconds / attainable(ops, size, bandwidth, rate),
        "You multiplied by the seconds. The measured rate is operations / seconds.",
    ),
    (
        lambda ops, size, seconds, bandwidth, rate: 1 - share_of_roof(ops, size, seconds, bandwidth, rate),
        "That is what is missing to the roof. Return the share that was reached.",
    ),
]
