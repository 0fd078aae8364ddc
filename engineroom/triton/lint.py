"""Find the mistakes in a model repository before the server does.

Each rule finds something that Triton, NVIDIA's backend or a model of the templates refuses at load, or that fails at
the first request. The issue numbers beside the rules are those of tensorrtllm_backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import text_format

from engineroom.triton.backend.parameters import VARIABLE
from engineroom.triton.lint_ensemble import check_ensemble
from engineroom.triton.lint_model import check_model
from engineroom.triton.model_folder import ModelFolder, parameter_pattern
from engineroom.triton.render import CONFIG, parse_config


def lint(repository: str | Path) -> list[str]:
    """One line for each problem, `<model>: <file>:<line>: what is wrong. What to do.`; empty when there is none."""
    repository = Path(repository)
    if not any(repository.glob(f"*/{CONFIG}")):
        return [f"{repository}: no model. Give a folder that holds models, each in a folder with a {CONFIG}."]
    models, problems = dict[str, ModelFolder](), list[str]()
    for path in sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != "."):
        model = read_model(path)
        if isinstance(model, str):
            problems.append(model)
        else:
            models[path.name] = model
    for model in models.values():
        problems += check_model(model)
        problems += check_engine_model(model, models)
        if model.config.platform == "ensemble":
            problems += check_ensemble(model, models)
    return problems


def read_model(path: Path) -> ModelFolder | str:
    """A model's configuration, or why it cannot be read."""
    if not (path / CONFIG).is_file():
        return f"{path.name}: no {CONFIG}. Render it, or move the folder out of the repository."
    text = (path / CONFIG).read_text(errors="replace")
    # A parameter that is not filled counts as one that is not given; check_program looks for those that are needed.
    settings = re.sub(rf'string_value:\s*"{VARIABLE}"', lambda match: " " * len(match[0]), text)
    unfilled = sorted(set(re.findall(VARIABLE, settings)))
    if unfilled:  # issue 526
        line = text.count("\n", 0, settings.index(unfilled[0])) + 1
        advice = "Give fill_template.py a value for each, or render it."
        return f"{path.name}: {CONFIG}:{line}: unfilled {', '.join(unfilled)}. {advice}"
    try:
        return ModelFolder(path, text, parse_config(text))
    except text_format.ParseError as error:
        reason = re.sub(r"^\d+:\d+ : ", "", str(error)).rstrip(".")
        return f"{path.name}: {CONFIG}:{error.GetLine()}: cannot be read: {reason}. Correct it."


def check_engine_model(model: ModelFolder, models: Mapping[str, ModelFolder]) -> Iterator[str]:
    """The model that a program calls. Triton loads the program even if it is missing; requests fail."""
    key = "tensorrt_llm_model_name"
    engine_name = model.parameter(key)
    if not engine_name:
        return
    if engine_name not in models:
        message = f"{key} {engine_name!r} is not in this repository. Name one that is."
        yield model.problem(parameter_pattern(key), message)
        return
    # Issue 626: a program that expects one response fails on a stream of them, and vice versa.
    engine_policy = models[engine_name].config.model_transaction_policy
    if engine_policy.decoupled != model.config.model_transaction_policy.decoupled:
        message = f"decoupled differs from {engine_name}'s. Give both the same decoupled_mode."
        yield model.problem("decoupled", message)
