"""The rules of a model's program: its file, and the parameters, the engine and the tokenizer that it reads at start."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from engineroom.engine.directory import TOKENIZER, EngineError, open_engine
from engineroom.openai.text import Vocabulary
from engineroom.triton.backend import parameters
from engineroom.triton.backend.model_yaml import model_yaml_problems, read_model_yaml
from engineroom.triton.backend.parameters import (
    VARIABLE,
    EngineParameters,
    ParametersError,
    Settings,
    TokenizerParameters,
)
from engineroom.triton.model_folder import ModelFolder, parameter_pattern

MODEL_YAML, PROGRAM, PROGRAM_CLASS = "model.yaml", "model.py", "TritonPythonModel"
PROGRAM_SETTINGS: list[type[Settings]] = [
    parameters.EngineParameters,
    parameters.PreprocessingParameters,
    parameters.PostprocessingParameters,
    parameters.BlsParameters,
]


def check_program(model: ModelFolder, version: Path) -> Iterator[str]:
    """The program of one version, and what it reads at start."""
    if model.config.backend == "tensorrtllm":
        for problem in EngineParameters.problems(parameter_values(model)):
            if problem.key == "gpt_model_path":
                yield model.problem(parameter_pattern(problem.key), problem.message)
        yield from check_filled(model, "gpt_model_type")
        return
    if model.config.backend not in ("", "python"):
        return
    name = model.config.default_model_filename or PROGRAM
    place = f"{version.name}/{name}"
    if not (version / name).is_file():
        yield model.problem("$^", f"{place} is missing. Render the repository again.")
        return
    try:
        tree = ast.parse((version / name).read_bytes())
    except SyntaxError as error:
        yield f"{model.name}: {place}:{error.lineno}: {error.msg}. Correct it, or render the repository again."
        return
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    if PROGRAM_CLASS not in names | imported_names(tree):
        yield f"{model.name}: {place} has no class {PROGRAM_CLASS}. Render the repository again."
        return
    settings = program_settings(model)
    if settings is not None:
        yield from check_parameters(model, settings)
    else:
        yield from check_filled(model, "tokenizer_dir")
    if "read_model_yaml" in imported_names(tree):
        yield from check_model_yaml(model, version / MODEL_YAML)


def check_filled(model: ModelFolder, key: str) -> Iterator[str]:
    """A parameter that NVIDIA's model needs; it does without the others that fill_template.py was not given."""
    if re.fullmatch(VARIABLE, model.parameter(key)):
        message = f"{key} is the unfilled variable {model.parameter(key)}. Give fill_template.py a value."
        yield model.problem(parameter_pattern(key), message)


def imported_names(tree: ast.Module) -> set[str]:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def program_settings(model: ModelFolder) -> type[Settings] | None:
    """The class with which the model's program reads its parameters; None for a program that is not ours."""
    for version in model.served_versions():
        path = model.path / str(version) / (model.config.default_model_filename or PROGRAM)
        text = path.read_text(errors="replace") if path.is_file() else ""
        for settings in PROGRAM_SETTINGS:
            if re.search(rf"\b{settings.__name__}\.read\(", text):
                return settings
    return None


def parameter_values(model: ModelFolder) -> dict[str, str]:
    return {key: value.string_value for key, value in model.config.parameters.items()}


def check_parameters(model: ModelFolder, settings: type[Settings]) -> Iterator[str]:
    """The parameters, and the engine or the tokenizer that they name."""
    values = parameter_values(model)
    problems = settings.problems(values)
    for problem in problems:
        yield model.problem(parameter_pattern(problem.key), problem.message)
    if problems:
        return
    try:
        parsed = settings.parse(values)
        if isinstance(parsed, TokenizerParameters):
            parsed.load_tokenizer()
        elif isinstance(parsed, EngineParameters):
            yield from check_limits(model, parsed)
    except ParametersError as error:
        key = str(error).split(" ", 1)[0]
        yield model.problem(parameter_pattern(key), str(error))
    except EngineError as error:
        yield model.problem(parameter_pattern("gpt_model_path"), str(error))


def check_limits(model: ModelFolder, parsed: EngineParameters) -> Iterator[str]:
    """Whether the configuration fits the limits of the engine. Raises EngineError, ParametersError."""
    limits = open_engine(parsed.gpt_model_path).limits
    parsed.check_beam_width(limits.max_beam_width)
    max_tokens = parsed.max_tokens_in_paged_kv_cache
    if max_tokens and max_tokens < limits.max_seq_len:  # issue 168
        yield model.problem(
            parameter_pattern("max_tokens_in_paged_kv_cache"),
            f"max_tokens_in_paged_kv_cache {max_tokens} is below the engine's max_seq_len {limits.max_seq_len}: the "
            f"longest request would never fit. Raise it, or build the engine with a smaller --max_seq_len.",
        )


def check_model_yaml(model: ModelFolder, path: Path) -> Iterator[str]:
    """model.yaml of an llmapi model against config.pbtxt, and the engine with the tokenizer that it names."""
    config, place = model.config, f"{model.name}: {path.parent.name}/{path.name}"
    policy = config.model_transaction_policy
    problems = model_yaml_problems(path, policy.decoupled, config.max_batch_size)
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for problem in problems:
        numbers = [n for n, line in enumerate(lines, 1) if line.strip().startswith(f"{problem.key}:")]
        yield f"{place}{f':{numbers[-1]}' if numbers else ''}: {problem.message}"
    if problems:
        return
    engine_dir = read_model_yaml(path, policy.decoupled, config.max_batch_size).model
    try:
        open_engine(engine_dir)
        Vocabulary(engine_dir / TOKENIZER)
    except EngineError as error:
        yield f"{place}: {error}"
    except Exception as error:  # noqa: BLE001 (`tokenizers` raises plain Exception)
        yield f"{place}: {engine_dir / TOKENIZER} has no tokenizer that can be loaded: {error}. Build the engine again."
