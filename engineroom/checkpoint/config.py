"""The configuration of a model, read from Hugging Face's or TensorRT-LLM's config.json, and written as the latter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.config_keys import check_attention_window, check_keys, check_trtllm_keys
from engineroom.checkpoint.config_values import (
    flag,
    longest_sequence,
    positive_number,
    source_dtype,
    whole_number,
)
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.mapping import Sharding
from engineroom.checkpoint.rope import frequencies, read_rope

LLAMA_LIKE = ("LlamaForCausalLM", "MistralForCausalLM")
QWEN_TYPES = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
FAMILIES = (*LLAMA_LIKE, *QWEN_TYPES)
MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
SAFETENSORS_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of one of FAMILIES: its sizes, its rotary embedding and the dtype of its weights.

    Names and meanings are those of TensorRT-LLM's config.json (PretrainedConfig).
    """

    architecture: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = False
    attn_bias: bool = False
    mlp_bias: bool = False
    norm_epsilon: float = 1e-5
    rotary_base: float = 10000.0
    rotary_scaling: dict[str, Any] | None = field(default=None, hash=False)
    dtype: str = "bfloat16"

    def inverse_frequencies(self) -> torch.Tensor:
        """Of the rotary embedding, float32 [head_size / 2]. Raises CheckpointError for an unknown rotary scaling."""
        return frequencies(self.head_size, self.rotary_base, self.rotary_scaling)

    @property
    def qk_layernorm(self) -> bool:
        return self.architecture == "Qwen3ForCausalLM"

    @property
    def dense_bias(self) -> bool:
        """Whether the attention's output projection has a bias: Llama's `attention_bias` adds one, Qwen's does not."""
        return self.attn_bias and self.architecture in LLAMA_LIKE

    def check(self, sharding: Sharding) -> None:
        """Raises CheckpointError when the model cannot be sharded like this."""
        tp_size, pp_size = sharding.mapping.tp_size, sharding.mapping.pp_size
        if pp_size > self.num_hidden_layers:
            raise CheckpointError(f"--pp_size {pp_size}: the model has only {self.num_hidden_layers} layers.")
        dimension = sharding.embedding_sharding_dim
        if dimension not in (0, 1):
            raise CheckpointError(
                f"--embedding_sharding_dim {dimension}: expected 0 (vocabulary) or 1 (hidden size)."
            )
        sizes = {"num_attention_heads": self.num_attention_heads, "intermediate_size": self.intermediate_size}
        if sharding.use_parallel_embedding and dimension == 1:
            sizes["hidden_size"] = self.hidden_size
        for name, size in sizes.items():
            if size % tp_size:
                raise CheckpointError(
                    f"--tp_size {tp_size} does not divide {name} {size}. Choose one that does."
                )
        kv_heads = self.num_key_value_heads
        if max(kv_heads, tp_size) % min(kv_heads, tp_size):
            raise CheckpointError(
                f"--tp_size {tp_size} and num_key_value_heads {kv_heads}: one must divide the other, so that each rank "
                f"gets whole KV heads. Choose another tp_size."
            )


def from_hugging_face(config: dict[str, Any], path: Path) -> ModelConfig:
    """The model that a Hugging Face config.json describes; `path` is named in errors.

    Where it says a thing twice, the order of transformers 5.19 counts. Raises CheckpointError for an architecture that
    is not in FAMILIES, for a quantised model, for a value that is missing or impossible, and for a key that may change
    the logits and is not converted (config_keys.py).
    """
    architecture = _architecture(config, path)
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{path}: 'quantization_config' says that this model is already quantised. Convert the original, then "
            f"quantise that."
        )
    check_keys(config, architecture, path)
    num_heads = whole_number(config, "num_attention_heads", path)
    if whole_number(config, "hidden_size", path) % num_heads and not config.get("head_dim"):
        raise CheckpointError(
            f"{path}: hidden_size is not a multiple of {num_heads} heads, and there is no head_dim."
        )
    if architecture == "Qwen3ForCausalLM":
        whole_number(
            config, "head_dim", path
        )  # required: without it transformers assumes 128, whatever the sizes are
    attn_bias, mlp_bias = flag(config, "attention_bias", path), flag(config, "mlp_bias", path)
    if architecture == "Qwen2ForCausalLM":  # its q, k and v always have a bias
        attn_bias = True
    rotary_base, rotary_scaling = read_rope(config, path)
    check_attention_window(config, architecture, longest_sequence(config, rotary_scaling), path)
    return ModelConfig(
        architecture=architecture,
        hidden_size=config["hidden_size"],
        num_hidden_layers=whole_number(config, "num_hidden_layers", path),
        num_attention_heads=num_heads,
        num_key_value_heads=config.get("num_key_value_heads") or num_heads,
        head_size=config.get("head_dim") or config["hidden_size"] // num_heads,
        intermediate_size=whole_number(config, "intermediate_size", path),
        vocab_size=whole_number(config, "vocab_size", path),
        tie_word_embeddings=flag(config, "tie_word_embeddings", path),
        attn_bias=attn_bias,
        mlp_bias=mlp_bias,
        norm_epsilon=positive_number(config, "rms_norm_eps", path),
        rotary_base=rotary_base,
        rotary_scaling=rotary_scaling,
        dtype=source_dtype(config, path) or "float32",
    )


def from_trtllm(config: dict[str, Any], path: Path) -> ModelConfig:
    """The model that a TensorRT-LLM checkpoint's config.json describes.

    `path` is named in errors. Raises CheckpointError as `from_hugging_face` does.
    """
    architecture, dtype = config.get("architecture"), config.get("dtype")
    _check_architecture(architecture, path)
    if dtype not in SAFETENSORS_DTYPES:
        raise CheckpointError(
            f"{path}: 'dtype' is {dtype!r}; expected one of {', '.join(SAFETENSORS_DTYPES)}."
        )
    check_trtllm_keys(config, path)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_size")
    sizes += ("intermediate_size", "vocab_size")
    return ModelConfig(
        architecture=config["architecture"],
        **{name: whole_number(config, name, path) for name in sizes},
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attn_bias=bool(config.get("attn_bias", architecture == "Qwen2ForCausalLM")),
        mlp_bias=bool(config.get("mlp_bias", False)),
        norm_epsilon=float(config.get("norm_epsilon", 1e-5)),
        rotary_base=float(config.get("rotary_base", 10000.0)),
        rotary_scaling=config.get("rotary_scaling"),
        dtype=config["dtype"],
    )


def _architecture(config: dict[str, Any], path: Path) -> str:
    """The architecture that transformers would load: that of `model_type`, whatever `architectures` says."""
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else "none"
    model_type = config.get("model_type")
    if model_type is None or named != "none":
        _check_architecture(named, path)
    if model_type is None:
        return str(named)
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"{path}: 'model_type' is {model_type!r}; expected one of {', '.join(MODEL_TYPES)}."
        )
    return MODEL_TYPES[model_type]


def _check_architecture(architecture: object, path: Path) -> None:
    if architecture not in FAMILIES:
        raise CheckpointError(f"{path}: architecture {architecture}; expected one of {', '.join(FAMILIES)}.")


def infer_dtype(dtype: str, source_dtype: str) -> str:
    """The dtype to write. `auto` keeps float16 and bfloat16, and turns any other dtype into float16.

    This is the rule of infer_dtype in tensorrt_llm/models/convert_utils.py. Raises CheckpointError for another dtype.
    """
    if dtype not in ("auto", *SAFETENSORS_DTYPES):
        raise CheckpointError(f"--dtype {dtype}: expected auto, {', '.join(SAFETENSORS_DTYPES)}.")
    if dtype != "auto":
        return dtype
    return source_dtype if source_dtype in ("float16", "bfloat16") else "float16"


def to_trtllm(model: ModelConfig, source: dict[str, Any], dtype: str, sharding: Sharding) -> dict[str, Any]:
    """TensorRT-LLM's config.json (keys of PretrainedConfig, LLaMAConfig and QWenConfig, release 1.2.1).

    `source` is the Hugging Face config.json. Keys of LLaMAConfig that only the runtime reads keep their defaults.
    """
    config = {
        "architecture": model.architecture,
        "dtype": dtype,
        "logits_dtype": "float32",
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_size": model.head_size,
        "intermediate_size": model.intermediate_size,
        "hidden_act": "silu",  # or its other name, swish
        "norm_epsilon": model.norm_epsilon,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": source["max_position_embeddings"],
        "rotary_embedding_dim": model.head_size,
        "rotary_base": model.rotary_base,
        "rotary_scaling": model.rotary_scaling,
        "attn_bias": model.attn_bias,
        "mlp_bias": model.mlp_bias,
        "qk_layernorm": model.qk_layernorm,
        "tie_word_embeddings": model.tie_word_embeddings,
        "use_parallel_embedding": sharding.use_parallel_embedding,
        "embedding_sharding_dim": sharding.embedding_sharding_dim,
        "mapping": sharding.mapping.to_dict(),
        "quantization": {
            "quant_algo": None,
            "kv_cache_quant_algo": None,
            "group_size": 128,
            "exclude_modules": None,
        },
    }
    if model.architecture in QWEN_TYPES:
        config |= {"qwen_type": QWEN_TYPES[model.architecture], "seq_length": source.get("seq_length", 8192)}
    return config
