"""Keys of config.json that a checkpoint may omit without changing the engine, each with the reason."""

from __future__ import annotations

ABSENT = "absent"
DEFAULT = "absent means this value, the default of the class that reads it"
UNREAD = "no class of release 1.2.1 reads it"
# Keys that either ModelOpt 0.37.0 or this package writes, but not both.
MODELOPT_REASONS = {
    "attn_bias": "ModelOpt leaves it to the reader's default: false for Llama, true for Qwen2",
    "bias": UNREAD,
    "decoder": UNREAD,
    "lm_head_bias": UNREAD,
    "logits_dtype": "the dtype of the logits that an engine returns; `trtllm-build --logits_dtype` decides",
    "mapping.cp_size": DEFAULT,
    "mapping.gpus_per_node": DEFAULT,
    "mlp_bias": DEFAULT,
    "producer": "a signature; " + UNREAD,
    "qk_layernorm": "Qwen's layers decide by qwen_type; for Llama " + DEFAULT,
    "quantization.exclude_modules": DEFAULT,
    "quantization.group_size": DEFAULT,
    "qwen_type": "ModelOpt writes Qwen's own keys only where TensorRT-LLM is installed",
    "rank": "the reader sets its own rank",
    "residual_mlp": DEFAULT,
    "rmsnorm": UNREAD,
    "rotary_embedding_dim": "absent means head_size, which is also its value",
    "rotary_pct": "1.0: the whole head, as when absent",
    "rotary_scaling": DEFAULT,
    "seq_length": "ModelOpt writes Qwen's own keys only where TensorRT-LLM is installed",
    "share_embedding_table": UNREAD + "; the lm_head is always written",
    "tie_word_embeddings": "the lm_head is always written, tied or not",
}
# Keys that NVIDIA's convert_checkpoint.py writes with their defaults (.to_dict() of LLaMAConfig and QWenConfig, 1.2.1).
CONVERTER_DEFAULTS = {
    "attention_multiplier",
    "disable_weight_only_quant_plugin",
    "embedding_multiplier",
    "fc_after_embed",
    "has_partial_lora_mask",
    "layer_idx_offset",
    "mapping.attn_cp_size",
    "mapping.attn_tp_size",
    "mapping.auto_parallel",
    "mapping.moe_cluster_size",
    "mapping.moe_ep_size",
    "mapping.moe_tp_size",
    "moe",
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "num_labels",
    "output_multiplier_scale",
    "quantization.clamp_val",
    "quantization.has_zero_point",
    "quantization.pre_quant_scale",
    "quantization.smoothquant_val",
    "quantization.use_meta_recipe",
    "remove_duplicated_kv_heads",
    "residual_multiplier",
    "runtime_defaults",
    "use_input_layernorm_in_first_layer",
    "use_last_layernorm",
    "use_logn_attn",
}


def harmless_reason(name: str, left: object, right: object) -> str:
    """Why this difference does not matter; empty when it may matter.

    A difference is harmless only if one side omits the key, or if the key is logits_dtype.
    """
    if ABSENT not in (left, right) and name != "logits_dtype":
        return ""
    return MODELOPT_REASONS.get(name) or (DEFAULT if name in CONVERTER_DEFAULTS else "")
