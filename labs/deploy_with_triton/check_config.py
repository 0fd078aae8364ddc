"""What can be wrong with a config.pbtxt for the shortest BLS program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from engineroom.triton.deployment import describe
from engineroom.triton.render import CONFIG, TEMPLATES, fill, parse_config
from labs.kit.check import Mistake, require

NAME, ENGINE_MODEL = "in_order", "tensorrt_llm"
INPUTS, OUTPUTS = ("text_input", "max_tokens"), ("text_output",)


@cache
def reference_config() -> ModelConfig:
    """The configuration of NVIDIA's BLS model, which has the same text tensors."""
    template = (TEMPLATES / "inflight_batcher_llm" / "tensorrt_llm_bls" / CONFIG).read_text()
    return parse_config(fill(template, describe(engine_dir=Path("/engine"))))


def check_config(text: str) -> None:
    """Raise Mistake unless Triton would load `in_order` with this text."""
    require(isinstance(text, str), "I expected the text of the file, got {type}.")
    require(text.strip(), "The text is empty. Begin with the name and the backend.")
    for number, line in enumerate(text.splitlines(), 1):
        require("..." not in line.partition("#")[0], f"Line {number} still has `...`: `{line.strip()}`")
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
    require(len(tensors) == len(getattr(config, side)), f"Two {side}s have the same name.")
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
    count = groups[0].count or 1  # Triton's default
    require(count == 1, f"`count` is {count}. One instance first; more come afterwards.")


def _check_parameter(config: ModelConfig) -> None:
    key = "tensorrt_llm_model_name"
    require(
        key in config.parameters,
        f"The program reads the parameter `{key}`; you have {', '.join(config.parameters) or 'none'}.",
        'One parameter: `parameters { key: "…" value { string_value: "…" } }`',
    )
    value = config.parameters[key].string_value
    require(value == ENGINE_MODEL, f"`{key}` is {value!r}. Which model of the repository has the engine?")
