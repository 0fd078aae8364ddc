"""Lesson 10: right answers in several styles, and wrong ones, each with the hint that it must get.

What `leave` and `roll_out` do to a real server is tested in tests/labs/deploy_with_triton/test_attempts.py.
"""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas

from labs.deploy_with_triton.attempts import Departure, Outcome, RollOut
from labs.deploy_with_triton.requests import TritonResponse

CONFIG = """
name: "in_order"
backend: "python"
max_batch_size: 8
model_transaction_policy { decoupled: true }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "tensorrt_llm_model_name" value { string_value: "tensorrt_llm" } }
"""

# the same configuration as other people write it
CONFIG_IN_SINGLE_QUOTES = CONFIG.replace('"', "'")
CONFIG_IN_BLOCKS = """
# the shortest BLS program
name: "in_order", backend: "python", max_batch_size: 1,
parameters: { key: "tensorrt_llm_model_name", value: { string_value: "tensorrt_llm" } }
instance_group { kind: KIND_CPU }  # one is the default
output { name: "text_output" data_type: TYPE_STRING dims: -1 }
input { name: "max_tokens" data_type: TYPE_INT32 dims: 1 }
input { name: "text_input" data_type: TYPE_STRING dims: 1 }
input { name: "temperature" data_type: TYPE_FP32 dims: 1 optional: true }
model_transaction_policy { decoupled: True }
"""
CONFIG_WITH_COLONS = """
name:'in_order'
backend:'python'
max_batch_size:64
model_transaction_policy: {decoupled:true}
input: [{name:'text_input', data_type:TYPE_STRING, dims:[1]}, {name:'max_tokens', data_type:TYPE_INT32, dims:[1]}]
output: [{name:'text_output', data_type:TYPE_STRING, dims:[-1]}]
instance_group: [{count:1, kind:KIND_CPU}]
parameters: [{key:'tensorrt_llm_model_name', value:{string_value:'tensorrt_llm'}}]
"""
SKELETON = CONFIG.replace('"python"', "...").replace("TYPE_INT32", "...")

MAX_TOKENS = 1000
PROOF = {"before": 500, "received": 20, "stopped": 529, "later": 529}
OLD_TOKEN_IDS, NEW_TOKEN_IDS = [7, 8, 9], [4, 5]
STATES = {"1": "UNAVAILABLE", "2": "READY"}
OLD_ENGINE, NEW_ENGINE = "/engines/first", "/engines/second"


def config(old: str, new: str) -> tuple[Any, ...]:
    assert old in CONFIG
    return (CONFIG.replace(old, new),)


MAX_TOKENS_INPUT = ',\n  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] }'
OTHER_SIDE = config(f"{MAX_TOKENS_INPUT}\n]\noutput [", f"\n]\noutput [ {MAX_TOKENS_INPUT[4:]},")


async def leave(answers: object) -> None:
    raise AssertionError("a check does not read a stream")


def cancel(proof: object = PROOF, **changes: Any) -> tuple[Any, ...]:
    """What the check gets after an attempt that was right but for the changes of a Departure's fields."""
    fields = {"num_responses": 20, "read_to_end": False, "cancelled": True, "steps_at_rest": 529}
    outcome = changes.pop("outcome", Outcome(proof))
    return leave, Departure(outcome, **fields | changes), MAX_TOKENS


def readings(**changed: object) -> dict[str, object]:
    return PROOF | changed


def response(version: str, token_ids: list[int], error: str = "") -> TritonResponse:
    return TritonResponse(0, 1, [0.5], token_ids, version="" if error else version, error=error)


async def roll_out(engine_dir: object) -> None:
    raise AssertionError("a check does not roll out")


FIRST, SECOND = response("1", OLD_TOKEN_IDS), response("2", NEW_TOKEN_IDS)
LOST = response(
    "", [], "[StatusCode.UNAVAILABLE] Request for unknown model: 'tensorrt_llm' has no available versions"
)


def rolled(
    *responses: TritonResponse, states: Any = MappingProxyType(STATES), **changes: Any
) -> tuple[Any, ...]:
    """What the check gets after an attempt that was right but for the changes of a RollOut's fields."""
    fields: dict[str, Any] = {"outcome": Outcome(), "versions": [1, 2], "engine_path": NEW_ENGINE}
    attempt = RollOut(
        responses=list(responses), start_time=0, end_time=1, states=dict(states), **fields | changes
    )
    return roll_out, attempt, NEW_ENGINE, OLD_TOKEN_IDS


def divide_by_zero() -> Exception:
    """An error that this file raised, as a learner's cell does."""
    try:
        return ValueError(1 // len(""))
    except ZeroDivisionError as error:
        return error


RIGHT: dict[str, list[tuple[Any, ...]]] = {
    "10.config": [(CONFIG,), (CONFIG_IN_SINGLE_QUOTES,), (CONFIG_IN_BLOCKS,), (CONFIG_WITH_COLONS,)],
    "10.cancel": [
        cancel(),
        cancel(pandas.Series(PROOF)),
        cancel({name: np.int64(value) for name, value in PROOF.items()}),
        cancel({name: float(value) for name, value in PROOF.items()}),
        cancel(SimpleNamespace(**PROOF)),
        cancel(readings(received=1), num_responses=1),
    ],
    "10.rollout": [
        rolled(FIRST, FIRST, SECOND),
        rolled(FIRST, SECOND, states={"2": "READY"}),  # the old version's row is gone
        rolled(FIRST, SECOND, versions=[2]),  # the old version's folder is gone
        rolled(
            FIRST, response("3", NEW_TOKEN_IDS), versions=[1, 3], states={"1": "UNAVAILABLE", "3": "READY"}
        ),
        rolled(FIRST, SECOND, outcome=Outcome("the new version is ready")),
    ],
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("10.config", ({"name": "in_order"},), "the text of the file"),
    ("10.config", (" \n",), "The text is empty"),
    ("10.config", (SKELETON,), 'Line 3 still has `...`: `backend: ...`'),
    ("10.config", config("max_batch_size: 8", "max_batch_size: ${size}"), "still a `${…}`"),
    ("10.config", config('"in_order"', "in_order"), "line 2, column 7: "),
    ("10.config", config("TYPE_INT32", "INT32"), "has no value named INT32"),
    ("10.config", config("TYPE_INT32 dims: [ 1 ] }", "TYPE_INT32 dims: [ 1 ]"), "stops in line"),
    ("10.config", config('name: "in_order"', ""), "It has no `name`"),
    ("10.config", config('"in_order"', '"tensorrt_llm_bls"'), "Triton requires them to be equal"),
    ("10.config", config("backend:", "platform:"), "is for ensembles"),
    ("10.config", config('backend: "python"', ""), "It has no `backend`"),
    ("10.config", config('"python"', '"tensorrtllm"'), "run by the backend `python`"),
    ("10.config", config("max_batch_size: 8", ""), "no batch dimension"),
    ("10.config", OTHER_SIDE, "on the other side"),
    ("10.config", config('"max_tokens"', '"request_output_len"'), "no input `max_tokens`; you have text_input"),
    ("10.config", config('output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]', ""), "have none"),
    ("10.config", config("TYPE_INT32", "TYPE_INT64"), "fits into 32 bits"),
    ("10.config", config('"text_input" data_type: TYPE_STRING', '"text_input" data_type: TYPE_UINT8'), "Text is bytes"),
    ("10.config", config("TYPE_INT32 dims: [ 1 ]", "TYPE_INT32 dims: [ -1, 1 ]"), "by itself"),
    ("10.config", config("TYPE_INT32 dims: [ 1 ]", "TYPE_INT32"), "One value is [ 1 ]"),
    ("10.config", config("dims: [ -1 ]", "dims: [ 1 ]"), "any number of values is [ -1 ]"),
    ("10.config", config("output [", 'input [ { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] } ]\noutput ['),
     "an input `stream` that nobody sends"),
    ("10.config", config("output [", 'output [ { name: "ids" data_type: TYPE_INT32 dims: [ 1 ] } ]\noutput ['),
     "an output `ids` that nobody makes"),
    ("10.config", config("model_transaction_policy { decoupled: true }", ""), "exactly one response"),
    ("10.config", config("decoupled: true", "decoupled: false"), "exactly one response"),
    ("10.config", config("instance_group [ { count: 1 kind: KIND_CPU } ]", ""), "There are 0 instance groups"),
    ("10.config", config('"max_tokens"', '"text_input"'), "Two inputs have the same name"),
    ("10.config", config("KIND_CPU", "KIND_GPU"), "The program computes nothing"),
    ("10.config", config("count: 1", "count: 4"), "One instance first"),
    ("10.config", config('"tensorrt_llm_model_name"', '"model"'), "reads the parameter `tensorrt_llm_model_name`"),
    ("10.config", config('"tensorrt_llm" }', '"in_order" }'), "Which model of the repository"),
    ("10.cancel", cancel([500, 20, 529, 529]), "returned [500, 20, 529, 529], not a dictionary with before"),
    ("10.cancel", cancel(None), "returned None, not a dictionary"),
    ("10.cancel", (500, *cancel()[1:]), "Pass it uncalled"),
    ("10.cancel", (leave, PROOF, MAX_TOKENS), "Pass what `try_leave` returned"),
    ("10.cancel", cancel({"before": 1, "received": 2, "stopped": 3}), "yours has no later"),
    ("10.cancel", cancel(stream_error="INVALID_ARG: request_output_len"), "Triton sent an error: INVALID_ARG"),
    ("10.cancel", cancel(readings(total=1)), "yours also has 'total'"),
    ("10.cancel", cancel(readings(stopped=...)), "Still `...`: stopped"),
    ("10.cancel", cancel(readings(stopped=529.5)), "`stopped` must be a whole number"),
    ("10.cancel", cancel(readings(received=True)), "`received` must be a whole number"),
    ("10.cancel", cancel(readings(received=0), num_responses=0), "read some responses first"),
    ("10.cancel", cancel(readings(received=1000, stopped=1500, later=1500), num_responses=1000, read_to_end=True),
     "that is the whole answer"),
    ("10.cancel", cancel(readings(received=29)), "`received` is 29, but you read 20"),
    ("10.cancel", cancel(readings(later=510)), "larger than a later one"),
    ("10.cancel", cancel(readings(before=540)), "larger than a later one"),
    ("10.cancel", cancel(readings(before=529)), "`before` and `stopped` are equal"),
    ("10.cancel", cancel(readings(later=700), cancelled=False, steps_at_rest=720), "Leaving the loop cancels nothing"),
    ("10.cancel", cancel(cancelled=False, steps_at_rest=720), "had run 220 steps"),
    ("10.cancel", cancel(readings(stopped=1500, later=1500), steps_at_rest=1500), "whole answer was generated"),
    ("10.cancel", cancel(readings(stopped=520)), "ran 9 more steps"),
    ("10.cancel", cancel(steps_at_rest=560), "came to rest at 560"),
    ("10.cancel", cancel(outcome=Outcome(timed_out=True)), "had not returned when the time was up"),
    ("10.cancel", cancel(outcome=Outcome(not_awaited=["sleep"])), "calls `sleep` without `await`"),
    ("10.cancel", cancel(outcome=Outcome(error=divide_by_zero())), "your code raised ZeroDivisionError"),
    ("10.rollout", (2, *rolled(FIRST, SECOND)[1:]), "Pass it uncalled"),
    ("10.rollout", (roll_out, [FIRST, SECOND], NEW_ENGINE, OLD_TOKEN_IDS), "Pass what `try_roll_out` returned"),
    ("10.rollout", rolled(), "run the load first"),
    ("10.rollout", rolled(FIRST, LOST, LOST, SECOND), "2 of 4 requests failed"),
    ("10.rollout", rolled(FIRST, FIRST, states={"1": "READY"}, versions=[1], engine_path=OLD_ENGINE),
     "without a folder `2`"),
    ("10.rollout", rolled(FIRST, FIRST, states={"1": "READY"}, versions=[1]), "again, with the new engine"),
    ("10.rollout", rolled(FIRST, FIRST, states={"1": "READY"}), "The folder `2` is there, but"),
    ("10.rollout", rolled(FIRST, states={"1": "READY"}, outcome=Outcome(not_awaited=["load_model"])),
     "calls `load_model` without `await`"),
    ("10.rollout", rolled(SECOND, SECOND), "Only version 2 answered"),
    ("10.rollout", rolled(FIRST, SECOND, states={"1": "READY", "2": "READY"}), "version 1, READY"),
    ("10.rollout", rolled(FIRST, SECOND, states={"1": "UNLOADING", "2": "READY"}), "version 1, UNLOADING"),
    ("10.rollout", rolled(FIRST, SECOND, states={"1": "READY", "2": "UNAVAILABLE"}), "version 2 is ready"),
    ("10.rollout", rolled(FIRST, SECOND, states={"1": "UNAVAILABLE"}), "Triton had no version"),
    ("10.rollout", rolled(FIRST, response("2", OLD_TOKEN_IDS), engine_path=OLD_ENGINE),
     "which engine does config.pbtxt name"),
    ("10.rollout", rolled(FIRST, response("2", OLD_TOKEN_IDS)), "change the file first, then load"),
    ("10.rollout", rolled(FIRST, response("2", OLD_TOKEN_IDS), engine_path=""), "names no engine any more"),
    ("10.rollout", rolled(FIRST, SECOND, outcome=Outcome(timed_out=True)), "stays in the list as UNAVAILABLE"),
    ("10.rollout", rolled(FIRST, states={"1": "READY"}, outcome=Outcome(timed_out=True)), "No other version was ever"),
    ("10.rollout", rolled(FIRST, SECOND, states={"1": "UNLOADING", "2": "READY"}, outcome=Outcome(timed_out=True)),
     "version 1, UNLOADING, version 2, READY. Which"),
    ("10.rollout", rolled(FIRST, states={"1": "READY"}, outcome=Outcome(error=divide_by_zero())),
     "in `divide_by_zero`, line"),
]  # fmt: skip
