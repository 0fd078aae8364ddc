"""The rules of a model's backend: whether this server has it, and what its devices and its environment need.

The rules are those of ValidateModelConfig and ValidateInstanceGroup in model_config_utils.cc of Triton's core, and of
python_be.cc of the Python backend, release 24.10.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from engineroom.triton.deployment import DeploymentError
from engineroom.triton.lint_program import PROGRAM
from engineroom.triton.model_folder import ModelFolder, enum_name, parameter_pattern
from engineroom.triton.server import NVIDIA, backend_directory, executable

# Fields of config.pbtxt that came after release 24.10, the one in NVIDIA's wheel.
NEWER_FIELDS = ("model_metrics", "max_inflight_requests")
ENVIRONMENT, CPU_ONLY = "EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"
MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"


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
        return runtime_problem(model, name)
    if not name and config.platform:
        message = f'platform "{config.platform}": this server has no such platform; expected ensemble, or a backend.'
        return model.problem("platform", message)
    return model.problem(
        "backend",
        f'backend "{name}": expected one of {", ".join(sorted(backends()))}; this server has no other. Correct it, '
        f"or move the folder out of the repository.",
    )


def runtime_problem(model: ModelFolder, backend: str) -> str:
    """Why Triton does not find the library that `runtime` names; empty when it does."""
    runtime = model.config.runtime
    folders = [model.path, *(model.path / str(version) for version in model.served_versions())]
    if backend in backends() and (directory := server_backends()):
        folders.append(directory / backend)
    if not runtime or any((folder / runtime).is_file() and runtime != PROGRAM for folder in folders):
        return ""
    return model.problem("runtime", f'runtime "{runtime}": backend {backend} has no such library. Remove it.')


def server_backends() -> Path | None:
    """The folder of the server's backends; None where there is no server yet."""
    try:
        return backend_directory(executable())
    except DeploymentError:
        return None


@cache
def backends() -> frozenset[str]:
    """The backends of the server on this machine; the Python backend where there is no server yet."""
    folder = server_backends()
    if folder is None:
        return frozenset({"python"})
    libraries = {path.name for path in folder.glob("*") if (path / f"libtriton_{path.name}.so").is_file()}
    return frozenset(libraries | {path.parent.name for path in folder.glob(f"*/{PROGRAM}")})


def check_backend(model: ModelFolder) -> Iterator[str]:
    """What the backend needs beyond the model's program."""
    yield from check_instances(model)
    if model.config.backend in ("", "python"):
        yield from check_environment(model)


def check_agents(model: ModelFolder) -> Iterator[str]:
    """The agents that prepare the model's folder before it is loaded."""
    if model.config.HasField("model_repository_agents") and not model.config.model_repository_agents.agents:
        message = "model_repository_agents has no agent, which ends Triton. Remove it."
        yield model.problem("model_repository_agents", message)
    for agent in model.config.model_repository_agents.agents:
        library = Path("repoagents") / agent.name / f"libtritonrepoagent_{agent.name}.so"
        directory = server_backends()
        if directory is None or not (directory.parent / library).is_file():
            message = f'agent "{agent.name}": this server has no such model_repository_agent. Remove it.'
            yield model.problem("model_repository_agents", message)


def check_newer_fields(model: ModelFolder) -> Iterator[str]:
    """Fields that the protobuf classes here know and the server in NVIDIA's wheel does not."""
    if NVIDIA.exists():
        return
    fields = {field.name for field, _ in model.config.ListFields()}
    fields |= {field.name for field, _ in model.config.ensemble_scheduling.ListFields()}
    for field in NEWER_FIELDS:
        if field in fields:
            message = f"{field}: this server is Triton 24.10, which does not have it. Remove it."
            yield model.problem(field, message)


def check_environment(model: ModelFolder) -> Iterator[str]:
    """The parameters of the Python backend itself."""
    path = Path(model.parameter(ENVIRONMENT).replace(MODEL_DIRECTORY, str(model.path)))
    if model.parameter(ENVIRONMENT) and not is_environment(path):
        message = f"{ENVIRONMENT} {path} is no environment; expected a folder with bin/activate, or a .tar.gz of one."
        yield model.problem(parameter_pattern(ENVIRONMENT), message)
    if CPU_ONLY in model.config.parameters and model.parameter(CPU_ONLY) not in ("yes", "no"):
        message = f"{CPU_ONLY} is {model.parameter(CPU_ONLY)!r}; expected yes or no."
        yield model.problem(parameter_pattern(CPU_ONLY), message)


def is_environment(path: Path) -> bool:
    return (path / "bin" / "activate").is_file() or (path.is_file() and tarfile.is_tarfile(path))


def check_instances(model: ModelFolder) -> Iterator[str]:
    """The devices of the instance groups."""
    num_gpus = torch.cuda.device_count()
    for group in model.config.instance_group:
        if group.profile:
            yield model.problem(
                "profile", "profile is for engines of TensorRT's own backend only. Remove it."
            )
        if group.kind not in ModelInstanceGroup.Kind.values():
            message = f"kind is {group.kind}; expected KIND_CPU, KIND_GPU, KIND_MODEL or KIND_AUTO."
            yield model.problem("kind", message)
        elif group.kind == ModelInstanceGroup.KIND_GPU and not num_gpus:
            message = "kind is KIND_GPU, and this machine has no GPU. Write KIND_CPU."
            yield model.problem(r"KIND_GPU", message)
        elif group.kind in (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_MODEL) and group.gpus:
            kind = enum_name(ModelInstanceGroup.Kind, group.kind)
            yield model.problem("gpus", f"gpus is given with {kind}. Remove it, or write KIND_GPU.")
        elif missing := [gpu for gpu in group.gpus if not 0 <= gpu < num_gpus]:
            yield model.problem(
                "gpus", f"gpus has {missing[0]}; this machine has {num_gpus} GPUs, counted from 0."
            )
