"""The rules of an ensemble: its steps, their versions, batch sizes and tensors.

The rules are those of Triton's core: ValidateEnsembleSchedulingConfig in model_config_utils.cc, and
ensemble_scheduler/ensemble_utils.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tritonclient.grpc.model_config_pb2 import DataType, ModelInput, ModelOutput

from engineroom.triton.lint_flow import Step, check_decoupled_steps, check_flow, first_names, step_pattern
from engineroom.triton.model_folder import ModelFolder, enum_name


class TensorType(NamedTuple):
    """A tensor's type, its dims without the batch dimension, and with it."""

    data_type: int
    dims: tuple[int, ...]
    full_dims: tuple[int, ...]

    @classmethod
    def of(cls, tensor: ModelInput | ModelOutput, batching: bool, reshape: bool = False) -> TensorType:
        dims = tuple(tensor.reshape.shape if reshape and tensor.HasField("reshape") else tensor.dims)
        return cls(tensor.data_type, dims, (-1, *dims) if batching else dims)

    def __str__(self) -> str:
        return f"{enum_name(DataType, self.data_type)} {list(self.full_dims)}"

    def fits(self, other: TensorType) -> bool:
        same_dims = same_shape(self.dims, other.dims) or same_shape(self.full_dims, other.full_dims)
        return self.data_type == other.data_type and same_dims


def same_shape(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two shapes are equal; -1 equals every size."""
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(a == b or -1 in (a, b) for a, b in pairs)


def check_ensemble(ensemble: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """The problems of an ensemble; `models` are all models of the repository whose config.pbtxt can be read."""
    config = ensemble.config
    steps = config.ensemble_scheduling.step
    if not steps:
        yield ensemble.problem(
            "ensemble_scheduling", "it has no step. Add ensemble_scheduling { step { … } }."
        )
        return
    for field in ("instance_group", "optimization", "model_warmup"):
        if config.HasField(field) if field == "optimization" else getattr(config, field):
            yield ensemble.problem(
                field, f"{field} is not for an ensemble. Remove it; its models have their own."
            )
    problems = [problem for step in steps for problem in check_step_model(ensemble, step, models)]
    problems += check_flow(ensemble)
    yield from problems
    yield from check_step_tensors(ensemble, models)
    yield from check_batch_dimension(ensemble, models)
    yield from check_ensemble_cache(ensemble, models)
    if not problems:
        yield from check_decoupled_steps(ensemble, models)


def check_step_model(ensemble: ModelFolder, step: Step, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """The model of a step, its version and its batch size."""
    pattern, max_batch_size = step_pattern(step), ensemble.config.max_batch_size
    for field in ("input_map", "output_map"):
        if not getattr(step, field):
            yield ensemble.problem(
                pattern, f"step {step.model_name!r} has no {field}. Map the model's tensors."
            )
    if step.model_name == ensemble.name or ensemble.name in later_steps(step.model_name, models):
        yield ensemble.problem(
            pattern, f"step {step.model_name!r} leads back to this ensemble. Name another model."
        )
        return
    if step.model_name not in models:
        names = ", ".join(name for name in models if name != ensemble.name)
        message = (
            f"step {step.model_name!r} is not in this repository, or cannot be read. Name one of {names}."
        )
        yield ensemble.problem(pattern, message)
        return
    model = models[step.model_name]
    versions = model.served_versions()
    if versions and step.model_version != -1 and step.model_version not in versions:
        yield ensemble.problem(
            rf"model_version:\s*{step.model_version}\b",
            f"model_version {step.model_version} of step {model.name!r} is not served; expected -1, for the newest, or "
            f"{' or '.join(map(str, versions))}.",
        )
    if 0 < model.config.max_batch_size < max_batch_size:
        yield ensemble.problem(
            "max_batch_size",
            f"max_batch_size {max_batch_size} is above {model.name}'s {model.config.max_batch_size}. Give all of "
            f"them the same triton_max_batch_size.",
        )


def check_batch_dimension(ensemble: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """An ensemble without batches whose inputs lack the batch dimension of a step. Triton loads it; requests fail."""
    if ensemble.config.max_batch_size:
        return
    dims = {tensor.name: tensor.dims for tensor in ensemble.config.input}
    for step in ensemble.config.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if model is None or not model.config.max_batch_size:
            continue
        for tensor in model.config.input:
            name = step.input_map.get(tensor.name, "")
            if name in dims and len(dims[name]) == len(tensor.dims):
                message = f"max_batch_size is 0; {model.name} needs a batch dimension. Set 1 or more."
                yield ensemble.problem("max_batch_size", message)
                return


def check_ensemble_cache(ensemble: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """An ensemble with a decoupled step is decoupled itself, and the cache keeps one response for each request."""
    names = later_steps(ensemble.name, models)
    decoupled = [
        name for name in names if name in models and models[name].config.model_transaction_policy.decoupled
    ]
    if ensemble.config.response_cache.enable and decoupled:
        message = (
            f"response_cache does not go with a decoupled step, {min(decoupled)}. Remove response_cache."
        )
        yield ensemble.problem("response_cache", message)


def later_steps(name: str, models: Mapping[str, ModelFolder]) -> set[str]:
    """The models that an ensemble leads to."""
    model_names: set[str] = set()
    names = [name]
    while names:
        if (model := models.get(names.pop())) is None:
            continue
        new_names = {step.model_name for step in model.config.ensemble_scheduling.step} - model_names
        model_names |= new_names
        names += new_names
    return model_names


def check_step_tensors(ensemble: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """One line for each step whose tensors its model does not have, or has with another type or shape."""
    config = ensemble.config
    tensors = [*config.input, *config.output]
    types = {
        tensor.name: (ensemble.name, TensorType.of(tensor, config.max_batch_size > 0, reshape=True))
        for tensor in reversed(tensors)
    }
    for step in config.ensemble_scheduling.step:
        if step.model_name not in models or step.model_name == ensemble.name:
            continue
        problems = dict(step_tensor_problems(step, models[step.model_name], types))
        names = [*problems]
        if len(problems) > 1:
            message = (
                f"step {step.model_name!r}: {len(names)} tensors do not fit that model "
                f"({first_names(names)}). The first: {problems[names[0]]}"
            )
            yield ensemble.problem(step_pattern(step), message)
        elif problems:
            yield ensemble.problem(rf'key:\s*"{re.escape(names[0])}"', f"step {problems[names[0]]}")


def step_tensor_problems(
    step: Step, model: ModelFolder, types: dict[str, tuple[str, TensorType]]
) -> Iterator[tuple[str, str]]:
    """(tensor of the model, what is wrong with it). Adds the types of new tensors of the ensemble to `types`."""
    config = model.config
    for side, tensor_map, tensors in (
        ("input", step.input_map, config.input),
        ("output", step.output_map, config.output),
    ):
        model_types = {tensor.name: TensorType.of(tensor, config.max_batch_size > 0) for tensor in tensors}
        for name, ensemble_name in tensor_map.items():
            if name not in model_types:
                yield (
                    name,
                    f"{model.name!r} has no {side} {name!r}. Rename it, or remove it from the {side}_map.",
                )
                continue
            owner, ensemble_type = types.setdefault(ensemble_name, (model.name, model_types[name]))
            if not ensemble_type.fits(model_types[name]):
                yield (
                    name,
                    f"{model.name!r} has {name} as {model_types[name]}, {owner} has {ensemble_name} as "
                    f"{ensemble_type}. Make them equal.",
                )
    for tensor in config.input:
        if not tensor.optional and tensor.name not in step.input_map:
            yield (
                tensor.name,
                f"{model.name!r} needs the input {tensor.name!r}, which no input_map gives. Map it.",
            )
