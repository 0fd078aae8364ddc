"""What a model is: the sizes that decide how its weights are laid out, and both spellings of its config.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.mapping import Mapping
from engineroom.checkpoint.rope import frequencies

LLAMA_LIKE = ("LlamaForCausalLM", "MistralForCausalLM")
QWEN_TYPES = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
FAMILIES = (*LLAMA_LIKE, *QWEN_TYPES)
DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


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
        """float32 [head_size / 2]: the rotary embedding's. Raises CheckpointError for an unknown kind of scaling."""
        return frequencies(self.head_size, self.rotary_base, self.rotary_scaling)

    @property
    def qk_layernorm(self) -> bool:
        return self.architecture == "Qwen3ForCausalLM"

    @property
    def dense_bias(self) -> bool:
        """Llama's `attention_bias` also reaches the output projection; Qwen's does not."""
        return self.attn_bias and self.architecture in LLAMA_LIKE

    def check(
        self, mapping: Mapping, use_parallel_embedding: bool = False, embedding_sharding_dim: int = 0
    ) -> None:
        """Raises CheckpointError when the model cannot be cut that way."""
        tp, pp = mapping.tp_size, mapping.pp_size
        if pp > self.num_hidden_layers:
            raise CheckpointError(f"--pp_size {pp}: the model has only {self.num_hidden_layers} layers.")
        if embedding_sharding_dim not in (0, 1):
            raise CheckpointError(
                f"--embedding_sharding_dim {embedding_sharding_dim}: 0 (vocabulary) or 1 (hidden)."
            )
        whole = {"num_attention_heads": self.num_attention_heads, "intermediate_size": self.intermediate_size}
        if use_parallel_embedding and embedding_sharding_dim == 1:
            whole["hidden_size"] = self.hidden_size
        for name, size in whole.items():
            if size % tp:
                raise CheckpointError(f"--tp_size {tp} does not divide {name} {size}. Choose one that does.")
        kv = self.num_key_value_heads
        if max(kv, tp) % min(kv, tp):
            raise CheckpointError(
                f"--tp_size {tp} and num_key_value_heads {kv}: one must divide the other, so that each rank gets whole "
                f"KV heads, or whole copies. Choose another tp_size."
            )


def from_hugging_face(config: dict[str, Any], where: Path) -> ModelConfig:
    """The model that a Hugging Face config.json describes.

    Raises CheckpointError for an architecture out of FAMILIES, a quantised model, a missing or impossible size.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in FAMILIES:
        raise CheckpointError(f"{where}: architecture {architecture}; expected one of {', '.join(FAMILIES)}.")
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{where}: this model is quantised already. Convert the original, then quantise that."
        )
    heads = _size(config, "num_attention_heads", where)
    if _size(config, "hidden_size", where) % heads and not config.get("head_dim"):
        raise CheckpointError(f"{where}: {heads} heads do not divide hidden_size, and there is no head_dim.")
    if architecture == "Qwen3ForCausalLM":
        _size(
            config, "head_dim", where
        )  # its default in transformers is 128, whatever the hidden size: ask for it
    qwen = architecture in QWEN_TYPES
    rotary_base, rotary_scaling = rope(config)
    return ModelConfig(
        architecture=architecture,
        hidden_size=config["hidden_size"],
        num_hidden_layers=_size(config, "num_hidden_layers", where),
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate_size=_size(config, "intermediate_size", where),
        vocab_size=_size(config, "vocab_size", where),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attn_bias=architecture == "Qwen2ForCausalLM" if qwen else bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)) and not qwen,
        norm_epsilon=_norm_epsilon(config, where),
        rotary_base=rotary_base,
        rotary_scaling=rotary_scaling,
        dtype=config.get("torch_dtype") or config.get("dtype") or "float32",
    )


def from_trtllm(config: dict[str, Any], where: Path) -> ModelConfig:
    """The model that a TensorRT-LLM checkpoint's config.json describes; raises as `from_hugging_face`."""
    if config.get("architecture") not in FAMILIES:
        raise CheckpointError(
            f"{where}: architecture {config.get('architecture')}; expected {', '.join(FAMILIES)}."
        )
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_size")
    sizes += ("intermediate_size", "vocab_size")
    return ModelConfig(
        architecture=config["architecture"],
        **{name: _size(config, name, where) for name in sizes},
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attn_bias=bool(config.get("attn_bias", config["architecture"] == "Qwen2ForCausalLM")),
        mlp_bias=bool(config.get("mlp_bias", False)),
        norm_epsilon=float(config.get("norm_epsilon", 1e-5)),
        rotary_base=float(config.get("rotary_base", 10000.0)),
        rotary_scaling=config.get("rotary_scaling"),
        dtype=_dtype(config, where),
    )


def _norm_epsilon(config: dict[str, Any], where: Path) -> float:
    value = config.get("rms_norm_eps")
    if not isinstance(value, int | float) or value <= 0:
        raise CheckpointError(f"{where}: 'rms_norm_eps' is {value!r}; expected a number above 0.")
    return float(value)


def _dtype(config: dict[str, Any], where: Path) -> str:
    dtype = config.get("dtype")
    if dtype not in DTYPE_NAMES:
        raise CheckpointError(f"{where}: 'dtype' is {dtype!r}; expected one of {', '.join(DTYPE_NAMES)}.")
    return dtype


def _size(config: dict[str, Any], name: str, where: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{where}: '{name}' is {value!r}; expected a whole number from 1 up.")
    return value


def infer_dtype(wish: str, config: dict[str, Any]) -> str:
    """`auto` is the dtype of the source, but float16 for float32 or none (tensorrt_llm infer_dtype)."""
    if wish not in ("auto", *DTYPE_NAMES):
        raise CheckpointError(f"--dtype {wish}: expected auto, {', '.join(DTYPE_NAMES)}.")
    if wish != "auto":
        return wish
    source = config.get("torch_dtype") or config.get("dtype")
    return source if source in ("float16", "bfloat16") else "float16"


def rope(config: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(rotary_base, rotary_scaling) of a Hugging Face config, in the spelling before or after transformers 5."""
    new = dict(config.get("rope_parameters") or {})
    base = new.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    scaling = config.get("rope_scaling") or (new if new.get("rope_type", "default") != "default" else None)
    return float(base), scaling


def to_trtllm(
    model: ModelConfig,
    source: dict[str, Any],
    dtype: str,
    mapping: Mapping,
    use_parallel_embedding: bool,
    sharding_dim: int,
) -> dict[str, Any]:
    """TensorRT-LLM's config.json (keys of PretrainedConfig, LLaMAConfig and QWenConfig, release 1.2.1).

    `mapping` holds the keys that every release accepts; runtime-only keys of LLaMAConfig are left to their defaults.
    """
    shared = {
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
        "hidden_act": source.get("hidden_act", "silu"),
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
        "use_parallel_embedding": use_parallel_embedding,
        "embedding_sharding_dim": sharding_dim,
        "mapping": _mapping(mapping),
        "quantization": {
            "quant_algo": None,
            "kv_cache_quant_algo": None,
            "group_size": 128,
            "exclude_modules": None,
        },
    }
    if model.architecture in QWEN_TYPES:
        shared |= {"qwen_type": QWEN_TYPES[model.architecture], "seq_length": source.get("seq_length", 8192)}
    return shared


def _mapping(mapping: Mapping) -> dict[str, int]:
    sizes = {"tp_size": mapping.tp_size, "pp_size": mapping.pp_size, "cp_size": 1, "gpus_per_node": 8}
    return {"world_size": mapping.world_size, **sizes}
