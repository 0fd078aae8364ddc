"""The rules of one model's config.pbtxt: what Triton refuses in it, and what this machine does not have.

The rules are those of ValidateModelConfig in model_config_utils.cc of Triton's core, release 24.10.
"""

from __future__ import annotations

from collections.abc import Iterator

from engineroom.triton.lint_backend import backend_problem, check_agents, check_backend, check_newer_fields
from engineroom.triton.lint_data import check_warmup
from engineroom.triton.lint_program import check_program, program_settings
from engineroom.triton.lint_schedulers import check_schedulers
from engineroom.triton.lint_tensors import check_tensors
from engineroom.triton.model_folder import ModelFolder
from engineroom.triton.render import version_numbers


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
    yield from check_newer_fields(model)
    yield from check_agents(model)
    yield from check_versions(model)
    yield from check_batch_size(model)
    yield from check_schedulers(model)
    yield from check_tensors(model)
    if is_ensemble:
        return
    if config.HasField("ensemble_scheduling"):
        message = (
            'ensemble_scheduling is for an ensemble. Remove it, or write platform: "ensemble" and no backend.'
        )
        yield model.problem("ensemble_scheduling", message)
    yield from check_backend(model)
    yield from check_warmup(model)
    for version in model.served_versions():
        yield from check_program(model, model.path / str(version))


def check_versions(model: ModelFolder) -> Iterator[str]:
    versions = version_numbers(model.path)
    if not versions:
        yield model.problem("$^", "no version. Make a folder 1; an ensemble's stays empty.")
    elif not model.served_versions():
        numbers = ", ".join(map(str, versions))
        yield model.problem(
            "version_policy", f"version_policy has none of the versions {numbers}. Name one of them."
        )


def check_batch_size(model: ModelFolder) -> Iterator[str]:
    max_batch_size = model.config.max_batch_size
    if max_batch_size < 0 or (max_batch_size == 0 and needs_batches(model)):
        message = f"max_batch_size is {max_batch_size}; this model needs a batch dimension. Set 1 or more."
        yield model.problem("max_batch_size", message)


def needs_batches(model: ModelFolder) -> bool:
    """Whether it is a program of the templates with a batch dimension. Triton loads it without one; requests fail."""
    return program_settings(model) is not None
