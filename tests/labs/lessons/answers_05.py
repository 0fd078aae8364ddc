"""Lesson 05: the right answers, and wrong ones with the hint that each must get."""

from __future__ import annotations

from math import ceil
from typing import Any

from engineroom.checkpoint import ModelConfig
from engineroom.load.workload import Turn
from labs.build_engine.checks import TOY
from labs.build_engine.memory import requests_that_fit

TRACE = [Turn(100, 50)] * 98 + [Turn(400, 20), Turn(150, 330)]  # longest prompt 400, longest request 480
GOOD = {"max_batch_size": 24, "max_input_len": 400, "max_seq_len": 480, "max_num_tokens": 256}
NEXT = {"prompt": "a", "machine": "b", "file": "c"}


def limits(**changed: object) -> tuple[Any, ...]:
    return GOOD | changed, TRACE, 16.0


def kv(model: ModelConfig, itemsize: int) -> int:
    return 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_size * itemsize


SEEN = {"vLLM": kv(TOY, 4)}

RIGHT: dict[str, tuple[Any, ...]] = {
    "05.limits": limits(),
    "05.kv": (kv, TOY, 4, SEEN),
    "05.fit": (requests_that_fit,),
    "05.refusals": (NEXT,),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("05.limits", ([24, 400, 480, 256], TRACE, 16.0), "a dictionary with"),
    ("05.limits", limits(max_output_len=80), "a dictionary with"),
    ("05.limits", limits(max_seq_len=...), "Still `...`: max_seq_len"),
    ("05.limits", limits(max_batch_size=23.9), "round up with"),
    ("05.limits", limits(max_input_len=0), "whole number from 1 up"),
    ("05.limits", limits(max_input_len=399), "1 of 100 prompts are longer"),
    ("05.limits", limits(max_input_len=131072, max_seq_len=131073), "delays everybody"),
    ("05.limits", limits(max_seq_len=400), "gets no answer"),
    ("05.limits", limits(max_seq_len=479), "longer in 1 of 100 requests"),
    ("05.limits", limits(max_seq_len=131072), "because the model can"),
    ("05.limits", limits(max_batch_size=15), "the queue grows"),
    ("05.limits", limits(max_batch_size=16), "nothing more. Arrivals bunch"),
    ("05.limits", limits(max_batch_size=2048, max_num_tokens=4096), "seats that nobody takes"),
    ("05.limits", limits(max_num_tokens=23), "the build refuses that"),
    ("05.limits", limits(max_num_tokens=30), "6 tokens of a step are left"),
    ("05.limits", limits(max_num_tokens=8192), "424 hold a full batch"),
    ("05.kv", (120, TOY, 4, SEEN), "Pass it uncalled"),
    ("05.kv", (lambda m, size: None, TOY, 4, SEEN), "not a number"),
    ("05.kv", (lambda m, size: kv(m, size) // 2, TOY, 4, SEEN), "Half of it"),
    ("05.kv", (lambda m, size: kv(m, size) // 4, TOY, 4, SEEN), "A quarter of it"),
    ("05.kv", (lambda m, size: kv(m, size) * 4, TOY, 4, SEEN), "query heads"),
    ("05.kv", (lambda m, size: kv(m, size) // 3, TOY, 4, SEEN), "one layer"),
    ("05.kv", (lambda m, size: 2 * 3 * m.hidden_size * size, TOY, 4, SEEN), "grouped-query attention"),
    ("05.kv", (lambda m, size: 2 * 3 * 2 * m.hidden_size * size, TOY, 4, SEEN), "`head_size` wide"),
    ("05.kv", (lambda m, size: kv(m, size) * 8, TOY, 4, SEEN), "bits"),
    ("05.kv", (lambda m, size: 7, TOY, 4, SEEN), "I get 120, you 7"),
    ("05.kv", (lambda m, size: kv(m, 2), TOY, 4, SEEN), "vLLM uses 240"),
    ("05.fit", (9,), "Pass it uncalled"),
    ("05.fit", (lambda kv, each, tokens: None,), "not a number"),
    ("05.fit", (lambda kv, each, tokens: kv // each // tokens,), "hands out whole blocks"),
    ("05.fit", (lambda kv, each, tokens: kv // (32 * each),), "how many blocks there are"),
    ("05.fit", (lambda kv, each, tokens: kv // each,), "how many tokens fit"),
    ("05.fit", (lambda kv, each, tokens: ceil(tokens / 32),), "one request needs"),
    ("05.fit", (lambda kv, each, tokens: 312 / 32,), "round down"),
    ("05.fit", (lambda kv, each, tokens: 8,), "I get 9, you 8"),
    ("05.fit", (lambda *sizes: max(1, requests_that_fit(*sizes)),), "the answer is 0"),
    ("05.refusals", ("abc",), "a dictionary with"),
    ("05.refusals", (NEXT | {"file": ...},), "Still `...`: file"),
    ("05.refusals", (NEXT | {"file": "copy"},), "choose 'a', 'b', 'c' or 'd'"),
    ("05.refusals", (NEXT | {"file": 3},), "choose 'a', 'b', 'c' or 'd'"),
    ("05.refusals", (NEXT | {"machine": "d"},), "need not be converted"),
    ("05.refusals", (NEXT | {"prompt": "b"},), "would say the same"),
    ("05.refusals", (NEXT | {"prompt": "c"},), "which limit the message names"),
    ("05.refusals", (NEXT | {"machine": "c"},), "the machine is another one"),
    ("05.refusals", (NEXT | {"machine": "a"},), "No limit is named"),
    ("05.refusals", (NEXT | {"file": "b"},), "takes longest"),
    ("05.refusals", (NEXT | {"file": "a"},), "No request was sent"),
]
