"""The rules of how tensors flow through an ensemble: who writes them, who reads them, and how many responses there are.

The rules are those of Triton's core: ValidateEnsembleSchedulingConfig in model_config_utils.cc, and
ensemble_scheduler/ensemble_utils.cc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tritonclient.grpc.model_config_pb2 import ModelEnsembling

from engineroom.triton.model_folder import ModelFolder

FIRST_NAMES = 3  # names in a line about many tensors
Step = ModelEnsembling.Step


def first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:FIRST_NAMES]) + (", …" if len(names) > FIRST_NAMES else "")


def step_pattern(step: Step) -> str:
    """Matches the line of a step in config.pbtxt."""
    return rf'model_name:\s*"{re.escape(step.model_name)}"'


def check_flow(ensemble: ModelFolder) -> Iterator[str]:
    """Every tensor has one writer and a reader, and no step waits for itself."""
    steps = ensemble.config.ensemble_scheduling.step
    inputs = {tensor.name for tensor in ensemble.config.input}
    outputs = {tensor.name for tensor in ensemble.config.output}
    written = [name for step in steps for name in step.output_map.values()]
    read = {name for step in steps for name in step.input_map.values()}
    problems = {
        "is written twice. Give the second another name": [
            name for name in dict.fromkeys(written) if written.count(name) > 1
        ],
        "is an input that no step uses. Map it, or remove it": sorted(inputs - read - {*written}),
        "is an output that no step writes. Map it, or remove it": sorted(outputs - {*written} - inputs),
        "is read by a step, but no step writes it and it is no input. Correct the name": sorted(
            read - inputs - {*written}
        ),
        "is written, but no step reads it and it is no output. Remove it, or correct the name": sorted(
            {*written} - read - outputs
        ),
    }
    for message, names in problems.items():
        if names:
            subject = names[0] if len(names) == 1 else f"each of {len(names)} tensors ({first_names(names)})"
            pattern = rf'(name|value):\s*"{re.escape(names[0])}"'
            yield ensemble.problem(pattern, f"{subject} {message}.")
    if not any(problems.values()) and len(steps_in_order(ensemble)) < len(steps):
        yield ensemble.problem(
            "ensemble_scheduling", "its steps wait for each other. Break the circle of tensors."
        )


def steps_in_order(ensemble: ModelFolder) -> list[Step]:
    """The steps in the order in which their inputs become ready; without those whose inputs never do."""
    ready = {tensor.name for tensor in ensemble.config.input}
    waiting, ordered = list(ensemble.config.ensemble_scheduling.step), list[Step]()
    while runnable := [step for step in waiting if ready.issuperset(step.input_map.values())]:
        ordered += runnable
        waiting = [step for step in waiting if step not in runnable]
        ready.update(name for step in runnable for name in step.output_map.values())
    return ordered


def check_decoupled_steps(ensemble: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """A step takes the responses of one decoupled model only, and so do the ensemble's outputs."""
    sources = {tensor.name: ensemble.name for tensor in ensemble.config.input}
    for step in steps_in_order(ensemble):
        step_sources = {sources[name] for name in step.input_map.values()}
        if len(step_sources) > 1:
            yield ensemble.problem(
                step_pattern(step), mixed_sources(f"step {step.model_name!r}", step_sources)
            )
            return
        is_decoupled = models[step.model_name].config.model_transaction_policy.decoupled
        source = step.model_name if is_decoupled else step_sources.pop()
        sources |= dict.fromkeys(step.output_map.values(), source)
    output_sources = {sources[tensor.name] for tensor in ensemble.config.output}
    if len(output_sources) > 1:
        yield ensemble.problem("output", mixed_sources("the outputs", output_sources))


def mixed_sources(subject: str, sources: set[str]) -> str:
    return (
        f"{subject} would take tensors of {' and '.join(sorted(sources))}, of which one sends several responses for "
        f"each of the other's. Make only one step's model decoupled."
    )
