"""What is deployed, in one typed description; the fields are the template variables of NVIDIA's own repositories.

Names, meaning and defaults follow docs/model_config.md of tensorrtllm_backend.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engineroom.engine.directory import TOKENIZER
from engineroom.kit.errors import UserError

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class DeploymentError(UserError, ValueError):
    """A description that cannot be deployed, or a repository that cannot be served; says what to do."""


def absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(
            f"expected an absolute path: the server is started elsewhere. Give {path.absolute()}"
        )
    return path


Absolute = Annotated[Path, AfterValidator(absolute)]


class Deployment(BaseModel):
    """Five models around one engine (`inflight_batcher_llm`), or one model with text in and out (`llmapi`).

    `triton_backend`: "python" is the engine of engineroom/engine, "tensorrtllm" an engine of trtllm-build in NVIDIA's
    container. `max_queue_size` 0 is no bound, as Triton has it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine_dir: Absolute
    tokenizer_dir: Absolute | None = None
    template: Literal["inflight_batcher_llm", "llmapi"] = "inflight_batcher_llm"
    triton_backend: Literal["python", "tensorrtllm"] = "python"
    triton_max_batch_size: Count = 64
    decoupled_mode: bool = True
    max_queue_delay_microseconds: NotNegative = 0
    max_queue_size: NotNegative = 0
    batching_strategy: Literal["inflight_fused_batching"] = "inflight_fused_batching"
    preprocessing_instance_count: Count = 1
    postprocessing_instance_count: Count = 1
    bls_instance_count: Count = 1
    accumulate_tokens: bool = False
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    tensorrt_llm_model_name: str = "tensorrt_llm"
    max_beam_width: Count = 1
    max_tokens_in_paged_kv_cache: Count | None = None
    kv_cache_free_gpu_mem_fraction: Fraction = 0.9
    enable_kv_cache_reuse: bool = True
    batch_scheduler_policy: Literal["guaranteed_no_evict", "max_utilization"] = "guaranteed_no_evict"
    exclude_input_in_output: bool = False
    cancellation_check_period_ms: Count = 100
    stats_check_period_ms: Count = 100
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
                "llmapi is a Python model; in NVIDIA's container take its own all_models/llmapi."
            )
        return self

    def variables(self) -> dict[str, str]:
        """Each field as it is written into a template: true and false in small letters, None as nothing."""
        fields = self.model_dump() | {"tokenizer_dir": self.tokenizer}
        words = {True: "true", False: "false", None: ""}
        return {
            name: words[value] if value is None or isinstance(value, bool) else str(value)
            for name, value in fields.items()
        }

    @property
    def tokenizer(self) -> Path:
        return self.tokenizer_dir or self.engine_dir / TOKENIZER


def describe(**fields: object) -> Deployment:
    """A Deployment of these fields. Raises DeploymentError that names each wrong field and what is expected of it."""
    try:
        return Deployment(**fields)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}. Got {one['input']!r}." for one in error.errors()
        ]
        raise DeploymentError("\n".join(lines)) from None
