"""What the llmapi model of the templates reads from model.yaml at start; `engineroom triton check` parses it too."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from engineroom.triton.backend.parameters import (
    FRACTION,
    KV_CACHE_TOKENS,
    MILLISECONDS,
    TRUE_OR_FALSE,
    EngineFolder,
    Fraction,
    KvCacheTokens,
    Milliseconds,
    ParameterProblem,
    ParametersError,
    Settings,
)


class KvCacheSettings(BaseModel):
    """The arguments of KvCacheConfig; no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: KvCacheTokens = Field(None, description=KV_CACHE_TOKENS)
    free_gpu_memory_fraction: Fraction = Field(0.9, description=FRACTION)
    enable_block_reuse: bool = Field(True, description=TRUE_OR_FALSE)


class TritonSettings(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    decoupled: bool = Field(description=TRUE_OR_FALSE)
    max_batch_size: NonNegativeInt = Field(description="a whole number, 0 or more")
    max_queue_size: NonNegativeInt = Field(description="a whole number; 0 means no limit")
    cancellation_check_period_ms: Milliseconds = Field(description=MILLISECONDS)


class ModelYaml(Settings):
    """model.yaml of the `llmapi` template."""

    model: EngineFolder = Field(description="the absolute path of an engine directory")
    kv_cache_config: KvCacheSettings = Field(
        default_factory=lambda: KvCacheSettings.model_validate({}), description="settings of the KV cache"
    )
    triton_config: TritonSettings = Field(description="settings of Triton")


def model_yaml_problems(path: Path, decoupled: bool, max_batch_size: int) -> list[ParameterProblem]:
    """What is wrong with a model.yaml; `decoupled` and `max_batch_size` are those of config.pbtxt."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return [ParameterProblem("", f"{path.name} cannot be read: {error}. Render it again.")]
    if not isinstance(values, dict):
        return [ParameterProblem("", f"{path.name} has no settings. Render it again.")]
    if problems := ModelYaml.problems(values):
        return problems
    settings = ModelYaml.model_validate(values).triton_config
    expected = {"decoupled": decoupled, "max_batch_size": max_batch_size}
    return [
        ParameterProblem(
            name,
            f"{name} is {getattr(settings, name)} in {path.name} and {value} in config.pbtxt. Make them equal.",
        )
        for name, value in expected.items()
        if getattr(settings, name) != value
    ]


def read_model_yaml(path: Path, decoupled: bool, max_batch_size: int) -> ModelYaml:
    """The settings of an llmapi model. Raises ParametersError with all problems."""
    if problems := model_yaml_problems(path, decoupled, max_batch_size):
        raise ParametersError("\n".join(problem.message for problem in problems))
    return ModelYaml.model_validate(yaml.safe_load(path.read_text()))
