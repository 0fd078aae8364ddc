"""Lesson 05: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import make_dataclass
from decimal import Decimal
from fractions import Fraction
from math import inf
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas

from engineroom.load.workload import Turn

TRACE = [Turn(100, 50)] * 98 + [Turn(400, 20), Turn(150, 330)]  # longest prompt 400, longest request 480
LIMITS = {"max_batch_size": 24, "max_input_len": 400, "max_seq_len": 480, "max_num_tokens": 256}
REMEDY = {"prompt": "a", "machine": "b", "file": "c"}


def limits(**changed: object) -> tuple[Any, ...]:
    return LIMITS | changed, TRACE, 16.0


GENEROUS = {"max_batch_size": 48, "max_input_len": 512, "max_seq_len": 1024, "max_num_tokens": 512}
SMALL = {"max_batch_size": 10, "max_input_len": 100, "max_seq_len": 150, "max_num_tokens": 128}
SETTINGS = make_dataclass("Settings", LIMITS)

RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "05.limits": [
        limits(),
        limits(**GENEROUS),
        limits(max_batch_size=np.int64(24), max_input_len=np.float32(400), max_seq_len=Fraction(480)),
        limits(max_batch_size=24.0, max_num_tokens=Decimal(256)),
        (pandas.Series(LIMITS), TRACE, 16.0),
        (MappingProxyType(LIMITS), TRACE, np.float64(16)),
        (SETTINGS(**LIMITS), TRACE, 16.0),
        (SMALL, [Turn(100, 50)] * 10, 4.0),  # as many slots as requests, by chance
    ],
    "05.refusals": [
        (REMEDY,),
        (OrderedDict(reversed(REMEDY.items())),),
        ({name: letter.upper() for name, letter in REMEDY.items()},),
        ({"prompt": "a: send a shorter prompt", "machine": "b: build again", "file": "c: copy the engine"},),
        (pandas.Series(REMEDY),),
        ({name: np.str_(f" ({letter})") for name, letter in REMEDY.items()},),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("05.limits", ([24, 400, 480, 256], TRACE, 16.0), "a dictionary with"),
    ("05.limits", limits(max_output_len=80), "a dictionary with"),
    ("05.limits", limits(max_seq_len=...), "Still `...`: max_seq_len"),
    ("05.limits", limits(max_batch_size=23.9), "round up with"),
    ("05.limits", limits(max_input_len=0), "must be 1 or more"),
    ("05.limits", limits(max_seq_len="480"), "`max_seq_len` must be a whole number"),
    ("05.limits", limits(max_num_tokens=True), "`max_num_tokens` must be a whole number"),
    ("05.limits", limits(max_num_tokens=inf), "a whole number: round up"),
    ("05.limits", limits(max_input_len=100), "is the median of the prompts: 2 of 100 prompts are longer"),
    ("05.limits", limits(max_input_len=104), "is the mean of the prompts"),
    ("05.limits", limits(max_seq_len=330), "is the longest answer"),
    (
        "05.limits",
        (LIMITS | {"max_batch_size": 200}, TRACE * 2, 16.0),
        "is the number of requests in the trace",
    ),
    ("05.limits", limits(max_input_len=399), "1 of 100 prompts are longer"),
    ("05.limits", limits(max_input_len=131072, max_seq_len=131073), "delays every request"),
    ("05.limits", limits(max_seq_len=400), "gets no answer"),
    ("05.limits", limits(max_seq_len=479), "1 of 100 requests are longer"),
    ("05.limits", limits(max_seq_len=131072), "because the model can"),
    ("05.limits", limits(max_batch_size=15), "the queue grows"),
    ("05.limits", limits(max_batch_size=16), "nothing more. Arrivals bunch"),
    ("05.limits", limits(max_batch_size=2048, max_num_tokens=4096), "most slots would never be used"),
    ("05.limits", limits(max_num_tokens=23), "the build refuses such limits"),
    ("05.limits", limits(max_num_tokens=30), "a step has 6 tokens left"),
    ("05.limits", limits(max_num_tokens=8192), "424 tokens hold a full batch"),
    ("05.refusals", ("abc",), "a dictionary with"),
    ("05.refusals", (REMEDY | {"file": ...},), "Still `...`: file"),
    ("05.refusals", (REMEDY | {"file": "copy"},), "choose 'a', 'b', 'c' or 'd'"),
    ("05.refusals", (REMEDY | {"file": 3},), "choose 'a', 'b', 'c' or 'd'"),
    ("05.refusals", (REMEDY | {"machine": "d"},), "need not be converted"),
    ("05.refusals", (REMEDY | {"prompt": "b"},), "would refuse the prompt again"),
    ("05.refusals", (REMEDY | {"prompt": "c"},), "which limit does it name"),
    ("05.refusals", (REMEDY | {"machine": "c"},), "this is another machine"),
    ("05.refusals", (REMEDY | {"machine": "a"},), "names no limit"),
    ("05.refusals", (REMEDY | {"file": "b"},), "takes longest"),
    ("05.refusals", (REMEDY | {"file": "a"},), "No request was sent"),
]
