"""Lesson 10: the right answers, and wrong ones, each with the hint that it must get."""

from __future__ import annotations

from typing import Any

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
MAX_TOKENS = 1000
PROOF = {"before": 500, "received": 20, "stopped": 529, "later": 529}
OLD_TOKEN_IDS, NEW_TOKEN_IDS = [7, 8, 9], [4, 5]
STATES = {"1": "UNAVAILABLE", "2": "READY"}


def config(old: str, new: str) -> tuple[Any, ...]:
    assert old in CONFIG
    return (CONFIG.replace(old, new),)


MAX_TOKENS_INPUT = ',\n  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] }'
OTHER_SIDE = config(f"{MAX_TOKENS_INPUT}\n]\noutput [", f"\n]\noutput [ {MAX_TOKENS_INPUT[4:]},")


def cancel(steps_now: int | None = None, **readings: object) -> tuple[Any, ...]:
    proof = PROOF | readings
    return proof, MAX_TOKENS, proof["later"] if steps_now is None else steps_now


def response(version: str, token_ids: list[int], error: str = "") -> TritonResponse:
    return TritonResponse(0, 1, [0.5], token_ids, version="" if error else version, error=error)


def roll_out(engine_dir: object) -> None:
    raise AssertionError("a check does not roll out")


def rolled(*responses: TritonResponse, **version_states: str) -> tuple[Any, ...]:
    states = {name.removeprefix("v"): state for name, state in version_states.items()}
    return roll_out, list(responses), states or STATES, OLD_TOKEN_IDS


FIRST, SECOND = response("1", OLD_TOKEN_IDS), response("2", NEW_TOKEN_IDS)
LOST = response(
    "", [], "[StatusCode.UNAVAILABLE] Request for unknown model: 'tensorrt_llm' has no available versions"
)

RIGHT: dict[str, tuple[Any, ...]] = {
    "10.config": (CONFIG,),
    "10.cancel": cancel(),
    "10.rollout": rolled(FIRST, FIRST, SECOND),
}

WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    ("10.config", ({"name": "in_order"},), "the text of the file"),
    ("10.config", (" \n",), "The text is empty"),
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
    ("10.config", config("KIND_CPU", "KIND_GPU"), "The program computes nothing"),
    ("10.config", config("count: 1", "count: 4"), "One instance first"),
    ("10.config", config('"tensorrt_llm_model_name"', '"model"'), "reads the parameter `tensorrt_llm_model_name`"),
    ("10.config", config('"tensorrt_llm" }', '"in_order" }'), "Which model of the repository"),
    ("10.cancel", ([500, 20, 529, 529], MAX_TOKENS, 529), "a dictionary with"),
    ("10.cancel", ({"before": 1, "after": 2}, MAX_TOKENS, 2), "a dictionary with"),
    ("10.cancel", cancel(stopped=...), "Still `...`: stopped"),
    ("10.cancel", cancel(stopped=529.5), "not a whole number"),
    ("10.cancel", cancel(received=True), "not a whole number"),
    ("10.cancel", cancel(received=0), "read some pieces first"),
    ("10.cancel", cancel(received=1000, stopped=1500, later=1500), "that is the whole answer"),
    ("10.cancel", cancel(later=510), "larger than a later one"),
    ("10.cancel", cancel(before=540), "larger than a later one"),
    ("10.cancel", cancel(before=529), "`before` and `stopped` are equal"),
    ("10.cancel", cancel(stopped=1500, later=1500), "for nobody. Leaving the loop"),
    ("10.cancel", cancel(stopped=800, later=1500), "for nobody. Leaving the loop"),
    ("10.cancel", cancel(stopped=520), "ran 9 more steps"),
    ("10.cancel", cancel(steps_now=640), "Has anything sent a request since?"),
    ("10.rollout", (2, [FIRST, SECOND], STATES, OLD_TOKEN_IDS), "Pass it uncalled"),
    ("10.rollout", (roll_out, [], STATES, OLD_TOKEN_IDS), "run the load first"),
    ("10.rollout", rolled(FIRST, LOST, LOST, SECOND), "2 of 4 requests failed"),
    ("10.rollout", rolled(FIRST, FIRST), "Version 1 answered every request"),
    ("10.rollout", rolled(SECOND, SECOND), "Only version 2 answered"),
    ("10.rollout", rolled(FIRST, SECOND, v1="READY", v2="READY"), "version 1, READY"),
    ("10.rollout", rolled(FIRST, SECOND, v1="UNLOADING", v2="READY"), "the old one is gone"),
    ("10.rollout", rolled(FIRST, SECOND, v1="READY", v2="UNAVAILABLE"), "version 2 is ready"),
    ("10.rollout", rolled(FIRST, SECOND, v1="UNAVAILABLE"), "no version"),
    ("10.rollout", rolled(FIRST, response("2", OLD_TOKEN_IDS)), "which engine does config.pbtxt name"),
]  # fmt: skip
