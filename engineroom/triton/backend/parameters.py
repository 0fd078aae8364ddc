"""What the models of the templates read from config.pbtxt at start.

The models and `engineroom triton check` parse with the same classes, so both refuse the same values in the same words.
The description of each field completes the sentence "expected …".
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from engineroom.kit.errors import UserError

CapacitySchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]
TRUE_OR_FALSE, FRACTION = "true or false", "a number above 0 and up to 1"
MILLISECONDS = "a whole number of milliseconds from 1 to 3600000"
KV_CACHE_TOKENS = "a whole number, 1 or more, or nothing for a share of the memory"
VARIABLE = r"\$\{\w+\}"  # of a template
TOKENIZER_FILE, ENGINE_FILE = "tokenizer.json", "config.json"


class ParameterProblem(NamedTuple):
    """One wrong parameter: its key and a sentence that says what was expected and what to do."""

    key: str
    message: str


class ParametersError(UserError, ValueError):
    """Parameters that a model cannot start with, one line for each."""


def folder_with(file: str) -> AfterValidator:
    """Validates that a path is absolute and names a folder that has `file`."""

    def check(path: Path) -> Path:
        if not path.is_absolute():  # issue 727
            raise ValueError(
                f"is {str(path)!r}, which is relative. Give the absolute path {path.absolute()}."
            )
        if not (path / file).is_file():  # issue 61
            raise ValueError(f"{path} has no {file}. Give the folder that has it.")
        return path

    return AfterValidator(check)


def none_if_empty(value: object) -> object:
    return None if value == "" else value


EngineFolder = Annotated[Path, folder_with(ENGINE_FILE)]
TokenizerFolder = Annotated[Path, folder_with(TOKENIZER_FILE)]
KvCacheTokens = Annotated[PositiveInt | None, BeforeValidator(none_if_empty)]


def without_variables(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, but not those that are still a variable of a template: NVIDIA's models take these as not given."""
    return {key: value for key, value in values.items() if not re.fullmatch(VARIABLE, str(value))}


class Settings(BaseModel):
    """Values that a model reads at start. Keys that it does not read are ignored, as NVIDIA's models ignore them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> list[ParameterProblem]:
        """One problem for each value that is missing or wrong."""
        try:
            cls.model_validate(without_variables(values))
        except ValidationError as error:
            return [cls._problem(details, values) for details in error.errors()]
        return []

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Raises ParametersError with all problems."""
        if problems := cls.problems(values):
            raise ParametersError("\n".join(problem.message for problem in problems))
        return cls.model_validate(without_variables(values))

    @classmethod
    def read(cls, model_config: Mapping[str, Any]) -> Self:
        """From the configuration that Triton gives to a model. Raises ParametersError with all problems."""
        parameters: Mapping[str, Mapping[str, str]] = model_config.get("parameters", {})
        return cls.parse({key: value.get("string_value", "") for key, value in parameters.items()})

    @classmethod
    def _problem(cls, details: Any, values: Mapping[str, Any]) -> ParameterProblem:
        """The sentence for one of pydantic's errors."""
        location, kind = [str(part) for part in details["loc"]], details["type"]
        name, key = ".".join(location), location[-1]
        expected = f"expected {_description(cls, location)}"
        if kind == "missing" and key in values:
            message = (
                f"{name} is the unfilled variable {values[key]}. Give fill_template.py a value: {expected}."
            )
            return ParameterProblem(key, message)
        if kind == "missing":
            unread = values.keys() - cls.model_fields.keys() if len(location) == 1 else ()
            similar = difflib.get_close_matches(key, unread, 1)
            advice = f"Rename {similar[0]} to {name}." if similar else f"Add it: {expected}."
            return ParameterProblem(similar[0] if similar else key, f"{name} is missing. {advice}")
        if kind == "extra_forbidden":
            return ParameterProblem(key, f"{name}: there is no such setting. Remove it.")
        if kind == "value_error":
            return ParameterProblem(key, f"{name} {details['ctx']['error']}")
        return ParameterProblem(key, f"{name} is {details['input']!r}; {expected}.")


def _description(model: type[BaseModel], location: list[str]) -> str:
    """The description of a field, which may be a field of a field."""
    field = model.model_fields.get(location[0])
    if field is None:
        return "another value"
    nested = field.annotation
    if len(location) > 1 and isinstance(nested, type) and issubclass(nested, BaseModel):
        return _description(nested, location[1:])
    return field.description or "another value"


class EngineParameters(Settings):
    """Parameters of `tensorrt_llm`, the model with the engine."""

    gpt_model_path: EngineFolder = Field(description="the absolute path of an engine directory")
    max_beam_width: Annotated[PositiveInt | None, BeforeValidator(none_if_empty)] = Field(
        None, description="a whole number, 1 or more"
    )
    max_tokens_in_paged_kv_cache: KvCacheTokens = Field(description=KV_CACHE_TOKENS)
    batch_scheduler_policy: CapacitySchedulerPolicy = Field(
        description="guaranteed_no_evict or max_utilization"
    )
    kv_cache_free_gpu_mem_fraction: Fraction = Field(description=FRACTION)
    enable_kv_cache_reuse: bool = Field(description=TRUE_OR_FALSE)
    exclude_input_in_output: bool = Field(description=TRUE_OR_FALSE)
    cancellation_check_period_ms: Milliseconds = Field(description=MILLISECONDS)

    def check_beam_width(self, built_width: int) -> None:
        """Raises ParametersError for a width above the one that the engine was built for."""
        if (self.max_beam_width or 1) > built_width:
            raise ParametersError(
                f"max_beam_width {self.max_beam_width}: the engine was built for {built_width}. Write {built_width}."
            )


class TokenizerParameters(Settings):
    """Parameters of both models with a tokenizer."""

    tokenizer_dir: TokenizerFolder = Field(description="the absolute path of a folder with tokenizer.json")

    def load_tokenizer(self) -> Any:
        """A PreTrainedTokenizerFast. Raises ParametersError where the files of the folder are no tokenizer."""
        from transformers import PreTrainedTokenizerFast  # takes a second, which other models need not wait

        try:
            return PreTrainedTokenizerFast.from_pretrained(self.tokenizer_dir)
        except Exception as error:  # noqa: BLE001 (`tokenizers` raises plain Exception)
            raise ParametersError(
                f"tokenizer_dir {self.tokenizer_dir} has no tokenizer that can be loaded: {error}. Copy its files "
                f"again."
            ) from None


class PreprocessingParameters(TokenizerParameters):
    add_special_tokens: bool = Field(description=TRUE_OR_FALSE)


class PostprocessingParameters(TokenizerParameters):
    skip_special_tokens: bool = Field(description=TRUE_OR_FALSE)


class BlsParameters(Settings):
    accumulate_tokens: bool = Field(description=TRUE_OR_FALSE)
    tensorrt_llm_model_name: str = Field(min_length=1, description="the name of the model with the engine")
    cancellation_check_period_ms: Milliseconds = Field(description=MILLISECONDS)
