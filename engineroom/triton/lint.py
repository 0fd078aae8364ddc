"""What is wrong with a model repository, said before the server says it worse.

Each rule is something that Triton or NVIDIA's backend refuses at load, or that fails at the first request; see the
issue threads named beside the rules (tensorrtllm_backend).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelEnsembling

from engineroom.engine.directory import EngineDir, EngineError, open_engine
from engineroom.triton.render import CONFIG, parse
from engineroom.triton.server import NVIDIA

ENGINE_PATH, TOKENIZER_PATH = "gpt_model_path", "tokenizer_dir"
YAML = "model.yaml"
BACKENDS = ("python", "tensorrtllm")
Configs = dict[str, ModelConfig]


def lint(repository: str | Path) -> list[str]:
    """One line for each mistake, `<model>: what is wrong, what to do`; empty when none was found."""
    repository, found, configs = Path(repository), [], Configs()
    if not repository.is_dir() or not any(repository.glob(f"*/{CONFIG}")):
        return [
            f"{repository}: no model; expected folders with a {CONFIG}. Give the repository, not one of its models."
        ]
    for folder in sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != "."):
        problems = list(read(folder, configs))
        if folder.name in configs:
            config = configs[folder.name]
            problems += [*model(folder, config), *engine(config), *described(folder, config)]
        found += [f"{folder.name}: {problem}" for problem in problems]
    return [*found, *decoupled(configs), *ensembles(configs)]


def read(folder: Path, configs: Configs) -> Iterator[str]:
    """Put the model's configuration into `configs`, or say why not."""
    if not (folder / CONFIG).is_file():
        yield f"no {CONFIG}. Render it, or take the folder out of the repository."
        return
    text = (folder / CONFIG).read_text(errors="replace")
    if unfilled := sorted(set(re.findall(r"\$\{\w+\}", text))):  # issue 526
        yield f"{CONFIG} has unfilled {', '.join(unfilled)}. Give each a value to fill_template.py, or render it."
        return
    try:
        configs[folder.name] = parse(text)
    except text_format.ParseError as error:
        yield f"{CONFIG} cannot be read: {error}."


def model(folder: Path, config: ModelConfig) -> Iterator[str]:
    """What holds for every model by itself."""
    if config.name not in ("", folder.name):
        yield f'name is "{config.name}", its folder {folder.name}. Make them equal.'
    versions = [
        path for path in folder.iterdir() if path.is_dir() and path.name.isdigit() and path.name != "0"
    ]
    if config.platform != "ensemble" and config.backend not in BACKENDS:
        yield f'backend "{config.backend}": expected one of {", ".join(BACKENDS)}.'
    elif config.backend == "tensorrtllm" and not NVIDIA.exists():
        yield 'backend "tensorrtllm" is in NVIDIA\'s container only. Here render with triton_backend:python.'
    elif config.backend == "python":
        for version in versions:
            if not (version / "model.py").is_file():
                yield f"{version.name}/model.py is missing. Render the repository again."
    if not versions:
        yield "no version. Make a folder 1; an ensemble's stays empty."
    if config.max_batch_size < 1 and not list(folder.glob(f"*/{YAML}")):
        yield f"max_batch_size is {config.max_batch_size}; these models take a batch dimension. Set 1 or more."
    for size in config.dynamic_batching.preferred_batch_size:
        if size > config.max_batch_size:
            yield f"preferred_batch_size {size} is above max_batch_size {config.max_batch_size}. Lower it."
    folders = {TOKENIZER_PATH: "tokenizer.json", ENGINE_PATH: "config.json"}
    for key in folders.keys() & config.parameters.keys():
        path = Path(config.parameters[key].string_value)
        if not path.is_absolute():  # issue 727
            yield f"{key} is {str(path)!r}, which is relative. Give the absolute path {path.absolute()}."
        elif not (path / folders[key]).is_file():  # issue 61
            yield f"{key} {path} has no {folders[key]}. Give the folder that holds it."


def engine(config: ModelConfig) -> Iterator[str]:
    """The engine itself, and its limits against the configuration's."""
    path = Path(config.parameters[ENGINE_PATH].string_value) if ENGINE_PATH in config.parameters else None
    if (
        config.backend != "python"
        or path is None
        or not (path.is_absolute() and (path / "config.json").is_file())
    ):
        return
    try:
        made = open_engine(path)
    except EngineError as error:
        yield str(error)
        return
    yield from limits(config, made)


def limits(config: ModelConfig, made: EngineDir) -> Iterator[str]:
    given = {key: value.string_value for key, value in config.parameters.items()}
    longest, tokens = int(made.build.max_seq_len or 0), given.get("max_tokens_in_paged_kv_cache")
    if tokens and not tokens.isdigit():
        yield f"max_tokens_in_paged_kv_cache is {tokens!r}; expected a whole number, or nothing for a share of memory."
    elif tokens and int(tokens) < longest:  # issue 168
        yield (
            f"max_tokens_in_paged_kv_cache {tokens} is below the engine's max_seq_len {longest}: the longest request "
            f"would never fit. Raise it, or build the engine with a smaller --max_seq_len."
        )
    if int(given.get("max_beam_width") or 1) > made.build.max_beam_width:
        yield f"max_beam_width {given['max_beam_width']}: the engine was built for {made.build.max_beam_width}."


def described(folder: Path, config: ModelConfig) -> Iterator[str]:
    """An llmapi model: its model.yaml against config.pbtxt, and the engine that it names."""
    for file in folder.glob(f"*/{YAML}"):
        try:
            given = yaml.safe_load(file.read_text())
            path, triton = Path(given["model"]), given["triton_config"]
            pairs = {
                "decoupled": config.model_transaction_policy.decoupled,
                "max_batch_size": config.max_batch_size,
            }
            wrong = [name for name in pairs if triton[name] != pairs[name]]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            yield f"{file.name} cannot be used: {type(error).__name__} {error}. Render it again."
            continue
        for name in wrong:
            yield f"{name} is {triton[name]} in {file.name} and {pairs[name]} in {CONFIG}. Make them equal."
        try:
            open_engine(path)
        except EngineError as error:
            yield str(error)


def decoupled(configs: Configs) -> Iterator[str]:
    """Issue 626: a program that waits for one answer breaks on a stream, and the other way round."""
    for name, config in configs.items():
        if "tensorrt_llm_model_name" in config.parameters:
            other = config.parameters["tensorrt_llm_model_name"].string_value
            if other not in configs:
                yield f"{name}: tensorrt_llm_model_name {other!r} is not in this repository. Name one that is."
            elif (
                configs[other].model_transaction_policy.decoupled != config.model_transaction_policy.decoupled
            ):
                yield f"{name}: decoupled differs from {other}'s. Give both the same decoupled_mode."


def ensembles(configs: Configs) -> Iterator[str]:
    """Each step's tensors exist in its model with the same type, and no step takes a smaller batch."""
    for name, config in configs.items():
        types = {tensor.name: tensor.data_type for tensor in config.input}
        for step in config.ensemble_scheduling.step:
            part = configs.get(step.model_name)
            if part is None:
                yield f"{name}: its step {step.model_name!r} is not in this repository, or cannot be read."
                continue
            if part.max_batch_size < config.max_batch_size:
                yield (
                    f"{name}: max_batch_size {config.max_batch_size} is above {step.model_name}'s "
                    f"{part.max_batch_size}. Give all of them the same triton_max_batch_size."
                )
            yield from wires(name, step, part, types)


def wires(name: str, step: ModelEnsembling.Step, part: ModelConfig, types: dict[str, int]) -> Iterator[str]:
    sides = (("input", step.input_map, part.input), ("output", step.output_map, part.output))
    for side, table, tensors in sides:
        known = {tensor.name: tensor.data_type for tensor in tensors}
        for inner, outer in table.items():
            if inner not in known:
                yield f"{name}: {step.model_name} has no {side} {inner!r}. It has {', '.join(known)}."
            elif types.setdefault(outer, known[inner]) != known[inner]:
                wanted, got = DataType.Name(known[inner]), DataType.Name(types[outer])
                yield f"{name}: {outer} is {got}, {step.model_name} takes {inner} as {wanted}. Make them equal."
        if side == "input":
            for tensor in tensors:
                if not tensor.optional and tensor.name not in table:
                    yield f"{name}: {step.model_name} needs the input {tensor.name!r}, which no input_map gives."
