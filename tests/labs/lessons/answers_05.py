"""Lesson 05: right answers in several styles, and wrong ones with the hint that each must get."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import make_dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, inf
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas

from engineroom.checkpoint import ModelConfig
from engineroom.load.workload import Turn
from labs.build_engine.checks import TOY
from labs.kit.memory import max_concurrent_requests

TRACE = [Turn(100, 50)] * 98 + [Turn(400, 20), Turn(150, 330)]  # longest prompt 400, longest request 480
LIMITS = {"max_batch_size": 24, "max_input_len": 400, "max_seq_len": 480, "max_num_tokens": 256}
REMEDY = {"prompt": "a", "machine": "b", "file": "c"}


def limits(**changed: object) -> tuple[Any, ...]:
    return LIMITS | changed, TRACE, 16.0


def kv(model: ModelConfig, itemsize: int) -> int:
    return 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_size * itemsize


MEASURED = {"vLLM": kv(TOY, 4)}

GENEROUS = {"max_batch_size": 48, "max_input_len": 512, "max_seq_len": 1024, "max_num_tokens": 512}
SMALL = {"max_batch_size": 10, "max_input_len": 100, "max_seq_len": 150, "max_num_tokens": 128}
SETTINGS = make_dataclass("Settings", LIMITS)

RIGHT: dict[str, list[tuple[Any, ...]] | tuple[Any, ...]] = {
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
    "05.kv": (kv, TOY, 4, MEASURED),
    "05.fit": (max_concurrent_requests,),
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
    ("05.kv", (120, TOY, 4, MEASURED), "Pass it uncalled"),
    ("05.kv", (lambda model, size: None, TOY, 4, MEASURED), "not a number"),
    ("05.kv", (lambda model, size: kv(model, size) // 2, TOY, 4, MEASURED), "half of it"),
    ("05.kv", (lambda model, size: kv(model, size) // 4, TOY, 4, MEASURED), "a quarter of it"),
    ("05.kv", (lambda model, size: kv(model, size) * 4, TOY, 4, MEASURED), "query heads"),
    ("05.kv", (lambda model, size: kv(model, size) // 3, TOY, 4, MEASURED), "one layer"),
    (
        "05.kv",
        (lambda model, size: 2 * 3 * model.hidden_size * size, TOY, 4, MEASURED),
        "grouped-query attention",
    ),
    (
        "05.kv",
        (lambda model, size: 2 * 3 * 2 * model.hidden_size * size, TOY, 4, MEASURED),
        "`head_size` wide",
    ),
    ("05.kv", (lambda model, size: kv(model, size) * 8, TOY, 4, MEASURED), "bits"),
    ("05.kv", (lambda model, size: 7, TOY, 4, MEASURED), "I get 120, you 7"),
    ("05.kv", (lambda model, size: kv(model, 2), TOY, 4, MEASURED), "vLLM uses 240"),
    ("05.fit", (9,), "Pass it uncalled"),
    ("05.fit", (lambda kv_cache, per_token, tokens: None,), "not a number"),
    (
        "05.fit",
        (lambda kv_cache, per_token, tokens: kv_cache // per_token // tokens,),
        "hands out whole blocks",
    ),
    (
        "05.fit",
        (lambda kv_cache, per_token, tokens: kv_cache // (32 * per_token),),
        "how many blocks there are",
    ),
    ("05.fit", (lambda kv_cache, per_token, tokens: kv_cache // per_token,), "how many tokens fit"),
    ("05.fit", (lambda kv_cache, per_token, tokens: ceil(tokens / 32),), "one request needs"),
    ("05.fit", (lambda kv_cache, per_token, tokens: 312 / 32,), "round down"),
    ("05.fit", (lambda kv_cache, per_token, tokens: 8,), "I get 9, you 8"),
    ("05.fit", (lambda *sizes: max(1, max_concurrent_requests(*sizes)),), "the answer is 0"),
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
