"""The checks of lesson 10's exercises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from engineroom.triton.deployment import describe
from engineroom.triton.render import CONFIG, TEMPLATES, fill, parse_config
from labs.deploy_with_triton.requests import TritonResponse
from labs.kit.check import Mistake, exercise, require, require_function, require_names

NAME, ENGINE_MODEL = "in_order", "tensorrt_llm"
INPUTS, OUTPUTS = ("text_input", "max_tokens"), ("text_output",)
READINGS = ("before", "received", "stopped", "later")


@cache
def reference_config() -> ModelConfig:
    """The configuration of NVIDIA's BLS model, which has the same text tensors."""
    template = (TEMPLATES / "inflight_batcher_llm" / "tensorrt_llm_bls" / CONFIG).read_text()
    return parse_config(fill(template, describe(engine_dir=Path("/engine"))))


@exercise("10.config", version=1, title="Write a config.pbtxt", minutes=12)
def check_config(text: str) -> None:
    require(isinstance(text, str), "I expected the text of the file, got {type}.")
    require(text.strip(), "The text is empty. Begin with the name and the backend.")
    require("${" not in text, "There is still a `${…}` in it. That is for fill_template.py; write the value.")
    try:
        config = parse_config(text)
    except text_format.ParseError as error:
        reason = str(error).split(" : ", 1)[-1].rstrip(".")
        raise Mistake(
            f"Triton's parser stops in line {error.GetLine()}, column {error.GetColumn()}: {reason}.",
            'Text in quotes, types without: `name: "x"`, `data_type: TYPE_STRING`. Look at the config.pbtxt of '
            "preprocessing.",
        ) from None
    _check_model(config)
    _check_tensors("input", INPUTS, config)
    _check_tensors("output", OUTPUTS, config)
    _check_decoupled(config)
    _check_instances(config)
    _check_parameter(config)


def _check_model(config: ModelConfig) -> None:
    require(config.name, "It has no `name`. Triton looks for a folder of that name.")
    require(
        config.name == NAME,
        f"`name` is {config.name!r}, the folder is `{NAME}`. Triton requires them to be equal.",
    )
    require(
        not config.platform, f"`platform: {config.platform!r}` is for ensembles. A program has a `backend`."
    )
    require(config.backend, "It has no `backend`. Which one runs a model.py?")
    require(
        config.backend == "python",
        f"`backend` is {config.backend!r}; a model.py is run by the backend `python`.",
    )
    require(
        config.max_batch_size > 0,
        "`max_batch_size` is 0 or missing. Then Triton adds no batch dimension, but the tensors of the other models "
        "have one.",
        "Any number from 1 up: `max_batch_size: 8`.",
    )


def _check_tensors(side: str, names: Sequence[str], config: ModelConfig) -> None:
    tensors = {tensor.name: tensor for tensor in getattr(config, side)}
    expected = {tensor.name: tensor for tensor in getattr(reference_config(), side)}
    other_side = config.output if side == "input" else config.input
    other_names = {tensor.name for tensor in other_side} - tensors.keys()
    for name in names:
        require(name not in other_names, f"`{name}` is an {side}. You have it on the other side.")
        require(
            name in tensors,
            f"There is no {side} `{name}`; you have {', '.join(tensors) or 'none'}. Names are exact.",
        )
        _check_tensor(tensors[name], expected[name])
    for name, tensor in tensors.items():
        require(
            name in names or (side == "input" and tensor.optional),
            f"There is an {side} `{name}` that nobody {'sends' if side == 'input' else 'makes'}: take it out.",
        )


def _check_tensor(tensor: Any, expected: Any) -> None:
    """`tensor` and `expected` are a ModelInput or a ModelOutput."""
    name, dims, expected_dims = tensor.name, list(tensor.dims), list(expected.dims)
    require(
        tensor.data_type == expected.data_type,
        f"`{name}` is {DataType.Name(tensor.data_type)}. Text is bytes of any length, a number of tokens fits into 32 "
        f"bits: which type is that?",
        f"`{name}` is {DataType.Name(expected.data_type)}.",
    )
    require(
        len(dims) == len(expected_dims) or not dims,
        f"`{name}` has dims {dims}. Triton puts the batch dimension in front by itself, as max_batch_size is not 0: "
        f"leave it out.",
    )
    require(
        dims == expected_dims,
        f"`{name}` has dims {dims}. One value is [ 1 ]; any number of values is [ -1 ].",
        f"`{name}` has dims {expected_dims}.",
    )


def _check_decoupled(config: ModelConfig) -> None:
    require(
        config.model_transaction_policy.decoupled,
        "It is not decoupled: Triton would expect exactly one response to a request. This program sends many.",
        "`model_transaction_policy { decoupled: true }`",
    )


def _check_instances(config: ModelConfig) -> None:
    groups = config.instance_group
    require(
        len(groups) == 1,
        f"There are {len(groups)} instance groups. Write one: how many processes, and on what.",
        "`instance_group [ { count: 1 kind: KIND_CPU } ]`",
    )
    kind = ModelInstanceGroup.Kind.Name(groups[0].kind)
    require(kind == "KIND_CPU", f"Its instances are {kind}. The program computes nothing: KIND_CPU.")
    require(groups[0].count == 1, f"`count` is {groups[0].count}. One instance first; more come afterwards.")


def _check_parameter(config: ModelConfig) -> None:
    key = "tensorrt_llm_model_name"
    require(
        key in config.parameters,
        f"The program reads the parameter `{key}`; you have {', '.join(config.parameters) or 'none'}.",
        'One parameter: `parameters { key: "…" value { string_value: "…" } }`',
    )
    value = config.parameters[key].string_value
    require(value == ENGINE_MODEL, f"`{key}` is {value!r}. Which model of the repository has the engine?")


@exercise("10.cancel", version=1, title="Cancel, and prove that the engine stopped", minutes=10)
def check_cancel(proof: Mapping[str, int], max_tokens: int, steps_now: int) -> None:
    require_names(proof, READINGS)
    for name, value in proof.items():
        require(
            isinstance(value, int) and not isinstance(value, bool),
            f"`{name}` is {value!r}, not a whole number. `steps()` returns one, and you count `received` yourself.",
        )
    _check_received(proof["received"], max_tokens)
    _check_stopped(proof["before"], proof["stopped"], proof["later"], max_tokens)
    require(
        steps_now == proof["later"],
        f"The engine is at step {steps_now} now, but your `later` says {proof['later']}. Has anything sent a request "
        f"since?",
    )


def _check_received(received: int, max_tokens: int) -> None:
    require(
        received > 0,
        "You received nothing. A cancel before the first piece proves little: read some pieces first.",
    )
    require(
        received < max_tokens,
        f"You received {received} of {max_tokens} pieces: that is the whole answer. Leave earlier.",
    )


def _check_stopped(before: int, stopped: int, later: int, max_tokens: int) -> None:
    steps = stopped - before
    require(
        steps >= 0 and later >= stopped,
        "A reading is larger than a later one. In which order did you take them?",
    )
    require(
        steps,
        "`before` and `stopped` are equal, yet you received pieces. Read `before` before the first piece, and give the "
        "model time to publish its counters.",
    )
    require(
        steps < max_tokens and later - before < max_tokens,
        f"The engine ran {later - before} steps for {max_tokens} tokens: it generated the whole answer, for nobody. "
        f"Leaving the loop cancels nothing.",
        "An async iterator of tritonclient has `cancel()`.",
    )
    require(
        later == stopped,
        f"Between `stopped` and `later` the engine ran {later - stopped} more steps: it was still running, or its "
        f"counters were old. Counters are published once in a period: wait longer before you read `stopped`.",
        "`await asyncio.sleep(0.5)` after the cancel, and again before `later`.",
    )


@exercise("10.rollout", version=1, title="A new version, no lost request", minutes=12)
def check_rollout(
    roll_out: Callable[..., object],
    responses: Sequence[TritonResponse],
    states: Mapping[str, str],
    old_token_ids: list[int],
) -> None:
    require_function(roll_out, "roll_out")
    require(
        responses and all(isinstance(response, TritonResponse) for response in responses),
        "There are no responses: run the load first.",
    )
    _check_errors(responses)
    latest = _latest_version({response.version for response in responses}, states)
    require(
        all(response.token_ids != old_token_ids for response in responses if response.version == latest),
        f"Version {latest} answers as the old engine does. The folder is new, but which engine does config.pbtxt name?",
        "`rollout.replace_engine(text, engine_dir)` gives the text of config.pbtxt with another engine.",
    )


def _check_errors(responses: Sequence[TritonResponse]) -> None:
    errors = [" ".join(response.error.split()) for response in responses if response.error]
    if errors:
        raise Mistake(
            f"{len(errors)} of {len(responses)} requests failed; one got: “{errors[0][:90]}”. For a while no version "
            f"was there. Did you remove something before the new version was ready?",
            "No unload is needed. Load the new version beside the old one; Triton unloads the old one when its last "
            "request has ended.",
        )


def _latest_version(versions: set[str], states: Mapping[str, str]) -> str:
    """The version that has taken over from version 1 under the load and is now alone."""
    require(
        versions != {"1"},
        "Version 1 answered every request. A version is a folder with a number: without a folder `2`, Triton loads "
        "version 1 again, and there is no way back.",
        "Copy the folder `1` to `2` first, then change config.pbtxt, then load.",
    )
    require(
        "1" in versions,
        f"Only version {', '.join(sorted(versions))} answered. The load started before the roll-out: render the "
        f"repository again, and roll out once.",
    )
    latest = max(versions, key=int)
    loaded = {version: state for version, state in states.items() if state != "UNAVAILABLE"}
    names = ", ".join(f"version {version}, {state}" for version, state in loaded.items()) or "no version"
    require(
        loaded == {latest: "READY"},
        f"Triton has {names}. At the end of a roll-out the old one is gone, and version {latest} is ready.",
        "`load_model` returns when the new one is ready; the old one may still finish its answers. Wait for it.",
    )
    return latest
