"""The exercises of lesson 10."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from engineroom.triton.deployment import describe
from engineroom.triton.render import CONFIG, TEMPLATES, fill, parse
from labs.deploy_with_triton.requests import Answer
from labs.kit.check import exercise, require, require_function, require_names

NAME, ENGINE = "in_order", "tensorrt_llm"
INPUTS, OUTPUTS = ("text_input", "max_tokens"), ("text_output",)
READINGS = ("before", "received", "stopped", "later")


@cache
def known() -> ModelConfig:
    """The text interface of NVIDIA's template, in which the same tensors are."""
    text = (TEMPLATES / "inflight_batcher_llm" / "tensorrt_llm_bls" / CONFIG).read_text()
    return parse(fill(text, describe(engine_dir=Path("/engine"))))


@exercise("10.config", version=1, title="Write a config.pbtxt", minutes=12)
def config(text: str) -> None:
    require(isinstance(text, str), "I expected the text of the file, got {type}.")
    require(text.strip(), "The text is empty. Begin with the name and the backend.")
    require("${" not in text, "There is still a `${…}` in it. That is for fill_template.py; write the value.")
    try:
        given = parse(text)
    except text_format.ParseError as error:
        require(
            False,
            f"Triton's parser stops in line {error.GetLine()}, column {error.GetColumn()}: "
            f"{str(error).split(' : ', 1)[-1].rstrip('.')}.",
            'Text in quotes, types without: `name: "x"`, `data_type: TYPE_STRING`. Look at the preprocessing\'s.',
        )
    _model(given)
    for side, names in (("input", INPUTS), ("output", OUTPUTS)):
        _tensors(side, names, given)
    _running(given)


def _model(given: ModelConfig) -> None:
    require(given.name, "It has no `name`. Triton looks for a folder of that name.")
    require(given.name == NAME, f"`name` is {given.name!r}, the folder is `{NAME}`: Triton wants them equal.")
    require(
        not given.platform, f"`platform: {given.platform!r}` is for ensembles. A program has a `backend`."
    )
    require(given.backend, "It has no `backend`. Which one runs a model.py?")
    require(
        given.backend == "python",
        f"`backend` is {given.backend!r}; a model.py is run by the backend `python`.",
    )
    require(
        given.max_batch_size > 0,
        "`max_batch_size` is 0, or not there: then Triton adds no batch dimension, and the tensors of the other models "
        "have one.",
        "Any number from 1 up: `max_batch_size: 8`.",
    )


def _tensors(side: str, names: Sequence[str], given: ModelConfig) -> None:
    found = {tensor.name: tensor for tensor in getattr(given, side)}
    right = {tensor.name: tensor for tensor in getattr(known(), side)}
    other = {tensor.name for tensor in (given.output if side == "input" else given.input)}
    for name in names:
        require(name not in other - found.keys(), f"`{name}` is an {side}. You have it on the other side.")
        require(
            name in found,
            f"There is no {side} `{name}`; you have {', '.join(found) or 'none'}. Names are exact.",
        )
        tensor, wanted = found[name], right[name]
        kinds = DataType.Name(tensor.data_type), DataType.Name(wanted.data_type)
        require(
            tensor.data_type == wanted.data_type,
            f"`{name}` is {kinds[0]}. Text is bytes of any length, a number of tokens fits into 32 bits: which type is "
            f"that?",
            f"`{name}` is {kinds[1]}.",
        )
        require(
            len(tensor.dims) == len(wanted.dims) or not tensor.dims,
            f"`{name}` has dims {list(tensor.dims)}. Triton puts the batch dimension before them by itself, as "
            f"max_batch_size is not 0: leave it out.",
        )
        require(
            list(tensor.dims) == list(wanted.dims),
            f"`{name}` has dims {list(tensor.dims)}. One value is [ 1 ]; of any length is [ -1 ].",
            f"`{name}` has dims {list(wanted.dims)}.",
        )
    for name, tensor in found.items():
        require(
            name in names or (side == "input" and tensor.optional),
            f"There is an {side} `{name}` that nobody {'sends' if side == 'input' else 'makes'}: take it out.",
        )


def _running(given: ModelConfig) -> None:
    require(
        given.model_transaction_policy.decoupled,
        "It is not decoupled: Triton would want exactly one response to a request. This program sends many.",
        "`model_transaction_policy { decoupled: true }`",
    )
    groups = given.instance_group
    require(
        len(groups) == 1,
        f"There are {len(groups)} instance groups. Write one: how many processes, and on what.",
        "`instance_group [ { count: 1 kind: KIND_CPU } ]`",
    )
    kind = ModelInstanceGroup.Kind.Name(groups[0].kind)
    require(kind == "KIND_CPU", f"Its instances are {kind}. The program computes nothing: KIND_CPU.")
    require(groups[0].count == 1, f"`count` is {groups[0].count}. One instance first; more come afterwards.")
    key = "tensorrt_llm_model_name"
    require(
        key in given.parameters,
        f"The program reads the parameter `{key}`; you have {', '.join(given.parameters) or 'none'}.",
        'One parameter: `parameters { key: "…" value { string_value: "…" } }`',
    )
    value = given.parameters[key].string_value
    require(value == ENGINE, f"`{key}` is {value!r}. Which model of the repository has the engine?")


@exercise("10.cancel", version=1, title="Cancel, and prove that the engine stopped", minutes=10)
def cancel(proof: Mapping[str, int], asked: int, now: int) -> None:
    require_names(proof, READINGS)
    for name, value in proof.items():
        require(
            isinstance(value, int) and not isinstance(value, bool),
            f"`{name}` is {value!r}, not a whole number. `steps()` gives one; `received` you count.",
        )
    _left_early(proof["received"], asked)
    _engine_stopped(*(proof[name] for name in ("before", "stopped", "later")), asked)
    later = proof["later"]
    require(
        now == later, f"The engine is at step {now} now, your `later` says {later}. Did somebody ask since?"
    )


def _left_early(received: int, asked: int) -> None:
    require(
        received > 0,
        "You received nothing. Who cancels before the first piece proves little: read some first.",
    )
    require(
        received < asked,
        f"You received {received} of {asked} pieces: that is the whole answer. Leave earlier.",
    )


def _engine_stopped(before: int, stopped: int, later: int, asked: int) -> None:
    made = stopped - before
    require(made >= 0 and later >= stopped, "A reading is larger than a later one. Which did you take when?")
    require(
        made,
        "`before` and `stopped` are equal, yet you received pieces. Read `before` before the first piece, and give the "
        "model time to publish its counters.",
    )
    require(
        made < asked and later - before < asked,
        f"The engine made {later - before} steps, for {asked} tokens: it computed to the end, for nobody. Leaving the "
        f"loop tells no one.",
        "An async iterator of tritonclient has `cancel()`.",
    )
    require(
        later == stopped,
        f"Between `stopped` and `later` the engine made {later - stopped} more steps: it still ran, or its counters "
        f"were old. Counters are published once in a period: wait longer before you read `stopped`.",
        "`await asyncio.sleep(0.5)` after the cancel, and again before `later`.",
    )


@exercise("10.rollout", version=1, title="A new version, no lost request", minutes=12)
def rollout(
    act: Callable[..., object], answers: Sequence[Answer], left: Mapping[str, str], old: list[int]
) -> None:
    require_function(act, "roll_out")
    require(
        answers and all(isinstance(one, Answer) for one in answers),
        "There are no answers: run the load first.",
    )
    _nobody_failed(answers)
    latest = _took_over({one.version for one in answers}, left)
    by_latest = [one.tokens for one in answers if one.version == latest]
    require(
        old not in by_latest,
        f"Version {latest} answers as the old engine does. The folder is new, but which engine does config.pbtxt name?",
        "`rollout.name_engine(text, engine_dir)` gives the text of config.pbtxt with another engine.",
    )


def _nobody_failed(answers: Sequence[Answer]) -> None:
    failed = [" ".join(one.error.split())[:90] for one in answers if one.error]
    require(
        not failed,
        f"{len(failed)} of {len(answers)} requests failed; one was told: “{', '.join(failed[:1])}”. For a while nobody "
        f"was there. Did something go away before the new version was ready?",
        "No unload is needed. Load the new version beside the old one; Triton takes the old one away when its answers "
        "have ended.",
    )


def _took_over(seen: set[str], left: Mapping[str, str]) -> str:
    """The latest version, which has taken over from version 1 under the load, and is alone."""
    require(
        seen != {"1"},
        "Version 1 answered every request. A version is a folder with a number: without a folder `2` Triton loads "
        "version 1 again, and there is no way back.",
        "Copy the folder `1` to `2` first, then change config.pbtxt, then load.",
    )
    require(
        "1" in seen,
        f"Only version {', '.join(sorted(seen))} answered. The load was there before the roll-out began: render the "
        f"repository again, and roll out once.",
    )
    latest = max(seen, key=int)
    here = {version: state for version, state in left.items() if state != "UNAVAILABLE"}
    require(
        here == {latest: "READY"},
        f"Triton has {', '.join(f'version {name}, {state}' for name, state in here.items()) or 'no version'}. When it "
        f"is over the old one is gone, and version {latest} is ready.",
        "`load_model` returns when the new one is ready; the old one may still finish its answers. Wait for it.",
    )
    return latest
