"""Find the mistakes in a model repository before the server does.

Each rule finds something that Triton or NVIDIA's backend refuses at load, or that fails at the first request. The issue
numbers beside the rules are those of tensorrtllm_backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelEnsembling

from engineroom.engine.config import Limits
from engineroom.engine.directory import EngineError, open_engine
from engineroom.triton.render import CONFIG, parse_config, version_numbers
from engineroom.triton.server import NVIDIA

ENGINE_PATH, TOKENIZER_PATH = "gpt_model_path", "tokenizer_dir"
NEEDED_FILES = {TOKENIZER_PATH: "tokenizer.json", ENGINE_PATH: "config.json"}
MODEL_YAML = "model.yaml"
BACKENDS = ("python", "tensorrtllm")
Configs = dict[str, ModelConfig]  # by the name of the model's folder


def lint(repository: str | Path) -> list[str]:
    """One line for each problem, `<model>: what is wrong. What to do.`; empty when there is none."""
    repository = Path(repository)
    if not any(repository.glob(f"*/{CONFIG}")):
        return [f"{repository}: no model. Give a folder that holds models, each in a folder with a {CONFIG}."]
    configs, problems = Configs(), list[str]()
    for folder in sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != "."):
        problems += [f"{folder.name}: {problem}" for problem in check_folder(folder, configs)]
    return [*problems, *check_decoupled(configs), *check_ensembles(configs)]


def check_folder(folder: Path, configs: Configs) -> Iterator[str]:
    """What can be checked in one model's folder. Adds its configuration to `configs` if it can be read."""
    yield from read_config(folder, configs)
    if folder.name in configs:
        config = configs[folder.name]
        yield from check_program(folder, config)
        yield from check_batch_size(folder, config)
        yield from check_paths(config)
        yield from check_engine(config)
        yield from check_model_yaml(folder, config)


def read_config(folder: Path, configs: Configs) -> Iterator[str]:
    """Add the model's configuration to `configs`, or say why it cannot be read."""
    if not (folder / CONFIG).is_file():
        yield f"no {CONFIG}. Render it, or move the folder out of the repository."
        return
    text = (folder / CONFIG).read_text(errors="replace")
    unfilled = sorted(set(re.findall(r"\$\{\w+\}", text)))
    if unfilled:  # issue 526
        yield f"{CONFIG} has unfilled {', '.join(unfilled)}. Give fill_template.py a value for each, or render it."
        return
    try:
        configs[folder.name] = parse_config(text)
    except text_format.ParseError as error:
        yield f"{CONFIG} cannot be read: {error}."


def check_program(folder: Path, config: ModelConfig) -> Iterator[str]:
    """The model's name, its backend, and its version folders with the program in them."""
    if config.name not in ("", folder.name):
        yield f'name is "{config.name}", but its folder is {folder.name}. Make them equal.'
    versions = version_numbers(folder)
    if not versions:
        yield "no version. Make a folder 1; an ensemble's stays empty."
    if config.platform == "ensemble":
        return
    if config.backend not in BACKENDS:
        yield f'backend "{config.backend}": expected one of {", ".join(BACKENDS)}.'
    elif config.backend == "tensorrtllm":
        if not NVIDIA.exists():
            yield 'backend "tensorrtllm" is in NVIDIA\'s container only. Here, render with triton_backend:python.'
    else:
        for version in versions:
            if not (folder / str(version) / "model.py").is_file():
                yield f"{version}/model.py is missing. Render the repository again."


def check_batch_size(folder: Path, config: ModelConfig) -> Iterator[str]:
    if config.max_batch_size < 1 and not list(folder.glob(f"*/{MODEL_YAML}")):
        yield f"max_batch_size is {config.max_batch_size}; these models need a batch dimension. Set 1 or more."
    for size in config.dynamic_batching.preferred_batch_size:
        if size > config.max_batch_size:
            yield f"preferred_batch_size {size} is above max_batch_size {config.max_batch_size}. Lower it."


def check_paths(config: ModelConfig) -> Iterator[str]:
    for key, needed_file in NEEDED_FILES.items():
        if key not in config.parameters:
            continue
        path = Path(config.parameters[key].string_value)
        if not path.is_absolute():  # issue 727
            yield f"{key} is {str(path)!r}, which is relative. Give the absolute path {path.absolute()}."
        elif not (path / needed_file).is_file():  # issue 61
            yield f"{key} {path} has no {needed_file}. Give the folder that has it."


def check_engine(config: ModelConfig) -> Iterator[str]:
    """Whether this machine can load the engine, and whether the configuration fits the engine's limits."""
    if config.backend != "python" or ENGINE_PATH not in config.parameters:
        return
    path = Path(config.parameters[ENGINE_PATH].string_value)
    if not path.is_absolute() or not (path / NEEDED_FILES[ENGINE_PATH]).is_file():
        return  # check_paths reports it
    try:
        limits = open_engine(path).limits
    except EngineError as error:
        yield str(error)
        return
    yield from check_limits(config, limits)


def check_limits(config: ModelConfig, limits: Limits) -> Iterator[str]:
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    max_tokens = parameters.get("max_tokens_in_paged_kv_cache")
    if max_tokens and not max_tokens.isdigit():
        yield (
            f"max_tokens_in_paged_kv_cache is {max_tokens!r}; expected a whole number, or nothing for a share of the "
            f"memory."
        )
    elif max_tokens and int(max_tokens) < limits.max_seq_len:  # issue 168
        yield (
            f"max_tokens_in_paged_kv_cache {max_tokens} is below the engine's max_seq_len {limits.max_seq_len}: the "
            f"longest request would never fit. Raise it, or build the engine with a smaller --max_seq_len."
        )
    max_beam_width = parameters.get("max_beam_width")
    if max_beam_width and int(max_beam_width) > limits.max_beam_width:
        yield f"max_beam_width {max_beam_width}: the engine was built for {limits.max_beam_width}."


def check_model_yaml(folder: Path, config: ModelConfig) -> Iterator[str]:
    """An llmapi model: its model.yaml against config.pbtxt, and the engine that model.yaml names."""
    expected = {
        "decoupled": config.model_transaction_policy.decoupled,
        "max_batch_size": config.max_batch_size,
    }
    for path in folder.glob(f"*/{MODEL_YAML}"):
        try:
            model_yaml = yaml.safe_load(path.read_text())
            engine_dir = Path(model_yaml["model"])
            actual = {name: model_yaml["triton_config"][name] for name in expected}
        except (yaml.YAMLError, KeyError, TypeError) as error:
            yield f"{path.name} cannot be used: {type(error).__name__} {error}. Render it again."
            continue
        for name, value in expected.items():
            if actual[name] != value:
                yield f"{name} is {actual[name]} in {path.name} and {value} in {CONFIG}. Make them equal."
        try:
            open_engine(engine_dir)
        except EngineError as error:
            yield str(error)


def check_decoupled(configs: Configs) -> Iterator[str]:
    """Issue 626: a program that expects one response fails on a stream of them, and vice versa."""
    for name, config in configs.items():
        if "tensorrt_llm_model_name" not in config.parameters:
            continue
        engine_name = config.parameters["tensorrt_llm_model_name"].string_value
        if engine_name not in configs:
            yield f"{name}: tensorrt_llm_model_name {engine_name!r} is not in this repository. Name one that is."
            continue
        engine_policy = configs[engine_name].model_transaction_policy
        if engine_policy.decoupled != config.model_transaction_policy.decoupled:
            yield f"{name}: decoupled differs from {engine_name}'s. Give both the same decoupled_mode."


def check_ensembles(configs: Configs) -> Iterator[str]:
    """Each step's tensors exist in its model with the same type, and each step takes the ensemble's batches."""
    for name, config in configs.items():
        types = {tensor.name: tensor.data_type for tensor in config.input}
        for step in config.ensemble_scheduling.step:
            step_config = configs.get(step.model_name)
            if step_config is None:
                yield f"{name}: its step {step.model_name!r} is not in this repository, or cannot be read."
                continue
            if step_config.max_batch_size < config.max_batch_size:
                yield (
                    f"{name}: max_batch_size {config.max_batch_size} is above {step.model_name}'s "
                    f"{step_config.max_batch_size}. Give all of them the same triton_max_batch_size."
                )
            for problem in check_step(step, step_config, types):
                yield f"{name}: {problem}"


def check_step(step: ModelEnsembling.Step, config: ModelConfig, types: dict[str, int]) -> Iterator[str]:
    """`types`: the data types of the ensemble's tensors so far; this step's are added."""
    for side, tensor_map, tensors in (
        ("input", step.input_map, config.input),
        ("output", step.output_map, config.output),
    ):
        model_types = {tensor.name: tensor.data_type for tensor in tensors}
        for model_tensor, ensemble_tensor in tensor_map.items():
            if model_tensor not in model_types:
                names = ", ".join(model_types)
                yield f"{step.model_name} has no {side} {model_tensor!r}. It has {names}."
                continue
            model_type = model_types[model_tensor]
            ensemble_type = types.setdefault(ensemble_tensor, model_type)
            if ensemble_type != model_type:
                yield (
                    f"{ensemble_tensor} is {DataType.Name(ensemble_type)}, {step.model_name} has {model_tensor} as "
                    f"{DataType.Name(model_type)}. Make them equal."
                )
    for tensor in config.input:
        if not tensor.optional and tensor.name not in step.input_map:
            yield f"{step.model_name} needs the input {tensor.name!r}, which no input_map gives."
