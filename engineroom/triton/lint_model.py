"""The rules of one model's config.pbtxt: what Triton refuses in it, and what this machine does not have.

The rules are those of ValidateModelConfig in model_config_utils.cc of Triton's core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch
from tritonclient.grpc.model_config_pb2 import ModelInput, ModelInstanceGroup, ModelOutput

from engineroom.triton.deployment import DeploymentError
from engineroom.triton.lint_program import PROGRAM, check_program, program_settings
from engineroom.triton.model_folder import ModelFolder, tensor_pattern
from engineroom.triton.render import version_numbers
from engineroom.triton.server import NVIDIA, backend_directory, executable


def check_model(model: ModelFolder) -> Iterator[str]:
    """The problems of one model, an ensemble or not; the steps of an ensemble are checked elsewhere."""
    config = model.config
    if config.name not in ("", model.name):
        message = f'name is "{config.name}", but its folder is {model.name}. Make them equal.'
        yield model.problem(r'^name:\s*"', message)
    is_ensemble = config.platform == "ensemble" and not config.backend
    if not is_ensemble and (problem := backend_problem(model)):
        yield problem
        return
    yield from check_versions(model)
    yield from check_batching(model)
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            yield from check_tensor(model, kind, tensor)
    if not is_ensemble:
        yield from check_instances(model)
        for version in model.served_versions():
            yield from check_program(model, model.path / str(version))


def backend_problem(model: ModelFolder) -> str:
    """Why this server cannot run the model's program; empty when it can."""
    config = model.config
    name = config.backend
    if not name and not config.platform and list(model.path.glob(f"*/{PROGRAM}")):
        name = "python"  # Triton concludes it from the file
    if name == "tensorrtllm" and not NVIDIA.exists():
        message = (
            'backend "tensorrtllm" is in NVIDIA\'s container only. Here, render with triton_backend:python.'
        )
        return model.problem("backend", message)
    if name in backends() or (name and list(model.path.rglob(f"libtriton_{name}.so"))):
        return ""
    if not name and config.platform:
        message = f'platform "{config.platform}": this server has no such platform; expected ensemble, or a backend.'
        return model.problem("platform", message)
    return model.problem(
        "backend",
        f'backend "{name}": expected one of {", ".join(sorted(backends()))}; this server has no other. Correct it, '
        f"or move the folder out of the repository.",
    )


@cache
def backends() -> frozenset[str]:
    """The backends of the server on this machine; the Python backend where there is no server yet."""
    try:
        folder = backend_directory(executable())
    except DeploymentError:
        return frozenset({"python"})
    libraries = {path.name for path in folder.glob("*") if (path / f"libtriton_{path.name}.so").is_file()}
    return frozenset(libraries | {path.parent.name for path in folder.glob(f"*/{PROGRAM}")})


def check_versions(model: ModelFolder) -> Iterator[str]:
    versions = version_numbers(model.path)
    if not versions:
        yield model.problem("$^", "no version. Make a folder 1; an ensemble's stays empty.")
    elif not model.served_versions():
        numbers = ", ".join(map(str, versions))
        yield model.problem(
            "version_policy", f"version_policy has none of the versions {numbers}. Name one of them."
        )


def check_batching(model: ModelFolder) -> Iterator[str]:
    """The batch sizes, and the priorities of a queue."""
    config = model.config
    if config.max_batch_size < 0 or (config.max_batch_size == 0 and needs_batches(model)):
        message = (
            f"max_batch_size is {config.max_batch_size}; this model needs a batch dimension. Set 1 or more."
        )
        yield model.problem("max_batch_size", message)
    batching = config.dynamic_batching
    for size in [*batching.preferred_batch_size, *config.sequence_batching.oldest.preferred_batch_size]:
        if not 0 < size <= config.max_batch_size:
            yield model.problem(
                "preferred_batch_size",
                f"preferred_batch_size {size} is {'above max_batch_size' if size > 0 else 'below 1; expected 1 to'} "
                f"{config.max_batch_size}. Give a size in that range.",
            )
    levels = batching.priority_levels
    if levels and not 1 <= batching.default_priority_level <= levels:
        message = f"default_priority_level is {batching.default_priority_level}; expected 1 to {levels}."
        yield model.problem("default_priority_level|priority_levels", message)


def needs_batches(model: ModelFolder) -> bool:
    """Whether it is a model of the templates with a batch dimension. Triton loads it without one, and requests fail."""
    return model.config.platform == "ensemble" or program_settings(model) is not None


def check_tensor(model: ModelFolder, kind: str, tensor: ModelInput | ModelOutput) -> Iterator[str]:
    """Triton's ValidateIOShape."""
    pattern = tensor_pattern(tensor.name)
    if not tensor.name:
        yield model.problem(kind, f"an {kind} has no name. Give it one.")
    if not tensor.data_type:
        yield model.problem(pattern, f"{kind} {tensor.name} has no data_type. Give one, such as TYPE_INT32.")
    if not tensor.dims:
        yield model.problem(pattern, f"{kind} {tensor.name} has no dims. Give them, such as [ 1 ] or [ -1 ].")
    for dim in [*tensor.dims, *tensor.reshape.shape]:
        if dim < 1 and dim != -1:
            yield model.problem(
                pattern, f"{kind} {tensor.name} has the dim {dim}; expected 1 or more, or -1 for any."
            )
    if tensor.HasField("reshape") and not same_elements([*tensor.dims], [*tensor.reshape.shape]):
        yield model.problem(
            pattern,
            f"{kind} {tensor.name} has dims {list(tensor.dims)} and reshape {list(tensor.reshape.shape)}, which hold "
            f"different numbers of elements. Make them equal.",
        )
    if tensor.HasField("reshape") and not tensor.reshape.shape and model.config.max_batch_size == 0:
        yield model.problem(
            pattern, f"{kind} {tensor.name} has an empty reshape, which needs a batch dimension."
        )


def same_elements(dims: list[int], shape: list[int]) -> bool:
    """Whether two shapes hold as many elements between their dims of any size."""

    def parts(sizes: list[int]) -> list[int]:
        products = [1]
        for size in sizes:
            if size == -1:
                products.append(1)
            else:
                products[-1] *= size
        return products

    return parts(dims) == parts(shape) and (bool(shape) or math.prod(dims) == 1)


def check_instances(model: ModelFolder) -> Iterator[str]:
    """The devices of the instance groups."""
    num_gpus = torch.cuda.device_count()
    for group in model.config.instance_group:
        if group.kind == ModelInstanceGroup.KIND_GPU and not num_gpus:
            message = "kind is KIND_GPU, and this machine has no GPU. Write KIND_CPU."
            yield model.problem(r"KIND_GPU", message)
        elif group.kind in (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_MODEL) and group.gpus:
            kind = ModelInstanceGroup.Kind.Name(group.kind)
            yield model.problem("gpus", f"gpus is given with {kind}. Remove it, or write KIND_GPU.")
        elif missing := [gpu for gpu in group.gpus if not 0 <= gpu < num_gpus]:
            yield model.problem(
                "gpus", f"gpus has {missing[0]}; this machine has {num_gpus} GPUs, counted from 0."
            )
