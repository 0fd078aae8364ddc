"""The typed description of a deployment. Its fields are the template variables of NVIDIA's own model repositories.

Names, meaning and defaults follow docs/model_config.md of tensorrtllm_backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from engineroom.engine.directory import TOKENIZER
from engineroom.kit.errors import UserError
from engineroom.triton.backend.parameters import CapacitySchedulerPolicy, Fraction, Milliseconds


class DeploymentError(UserError, ValueError):
    """A description that cannot be deployed, or a repository that cannot be served; the message says what to do."""


def check_absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(
            f"expected an absolute path, as the server runs in another directory. Give {path.absolute()}"
        )
    return path


AbsolutePath = Annotated[Path, AfterValidator(check_absolute)]


class Deployment(BaseModel):
    """Five models around one engine (`inflight_batcher_llm`), or one model with text in and out (`llmapi`).

    `triton_backend`: "python" serves an engine of engineroom/engine, "tensorrtllm" an engine of trtllm-build in
    NVIDIA's container. `max_queue_size` 0 means no limit, as in Triton.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine_dir: AbsolutePath
    tokenizer_dir: AbsolutePath | None = None
    template: Literal["inflight_batcher_llm", "llmapi"] = "inflight_batcher_llm"
    triton_backend: Literal["python", "tensorrtllm"] = "python"
    triton_max_batch_size: PositiveInt = 64
    decoupled_mode: bool = True
    max_queue_delay_microseconds: NonNegativeInt = 0
    max_queue_size: NonNegativeInt = 0
    batching_strategy: Literal["inflight_fused_batching"] = "inflight_fused_batching"
    preprocessing_instance_count: PositiveInt = 1
    postprocessing_instance_count: PositiveInt = 1
    bls_instance_count: PositiveInt = 1
    accumulate_tokens: bool = False
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    tensorrt_llm_model_name: str = "tensorrt_llm"
    max_beam_width: PositiveInt = 1
    max_tokens_in_paged_kv_cache: PositiveInt | None = None
    kv_cache_free_gpu_mem_fraction: Fraction = 0.9
    enable_kv_cache_reuse: bool = True
    batch_scheduler_policy: CapacitySchedulerPolicy = "guaranteed_no_evict"
    exclude_input_in_output: bool = False
    cancellation_check_period_ms: Milliseconds = 100
    stats_check_period_ms: PositiveInt = 100
    normalize_log_probs: bool = True
    enable_chunked_context: bool = True
    decoding_mode: Literal["", "top_k", "top_p", "top_k_top_p"] = ""
    logits_datatype: Literal["TYPE_FP32", "TYPE_FP16"] = "TYPE_FP32"
    encoder_input_features_data_type: Literal["TYPE_FP16", "TYPE_BF16"] = "TYPE_FP16"
    prompt_embedding_table_data_type: Literal["TYPE_FP16", "TYPE_FP32", "TYPE_BF16"] = "TYPE_FP16"

    @model_validator(mode="after")
    def _has_a_backend(self) -> Deployment:
        if self.template == "llmapi" and self.triton_backend != "python":
            raise ValueError(
                "llmapi is a Python model. In NVIDIA's container, use the container's own all_models/llmapi."
            )
        return self

    def variables(self) -> dict[str, str]:
        """Each field as it is written into a template: `true` and `false` in lower case, None as an empty string."""
        fields = self.model_dump() | {"tokenizer_dir": self.tokenizer}
        return {name: template_value(value) for name, value in fields.items()}

    @property
    def tokenizer(self) -> Path:
        return self.tokenizer_dir or self.engine_dir / TOKENIZER


def template_value(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe(**fields: object) -> Deployment:
    """A Deployment of these fields. Raises DeploymentError, which names each wrong field and says what was expected."""
    try:
        return Deployment.model_validate(fields)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(map(str, problem["loc"]))
            lines.append(f"{field}: {problem['msg']}. Got {problem['input']!r}.")
        raise DeploymentError("\n".join(lines)) from None
