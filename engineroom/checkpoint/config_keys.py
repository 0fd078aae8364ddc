"""The keys of a Hugging Face config.json that a conversion reads, and those that change no logits.

A key that is in none of these lists may change what the model computes, so it is refused by name. What transformers
5.19 reads for these architectures (models/{llama,mistral,qwen2,qwen3}) decides which values change nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engineroom.checkpoint.errors import CheckpointError

# from_hugging_face, to_trtllm, read_rope, weight_files and check_attention_window read these keys.
READ_KEYS = """
    architectures model_type dtype torch_dtype quantization_config transformers_weights
    hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size
    rms_norm_eps tie_word_embeddings attention_bias mlp_bias hidden_act
    max_position_embeddings seq_length rope_parameters rope_scaling rope_theta original_max_position_embeddings
    sliding_window use_sliding_window max_window_layers layer_types
"""
# They describe training, tokens, sampling, outputs or tools; none of them changes the logits of a forward pass.
KEYS_WITHOUT_EFFECT = """
    _name_or_path name_or_path _commit_hash transformers_version transformers.js_config is_llama_config
    unsloth_fixed unsloth_version attn_implementation _attn_implementation _attn_implementation_autoset
    _flash_attn_2_enabled torchscript use_cache pretraining_tp gradient_checkpointing neftune_noise_alpha
    initializer_range attention_dropout hidden_dropout attn_pdrop embd_pdrop resid_pdrop classifier_dropout
    bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id eos_token_ids
    bos_token eos_token pad_token unk_token tokenizer_class processor_class prefix
    max_sequence_length model_max_length tokenizer_model_max_length
    id2label label2id num_labels problem_type finetuning_task task_specific_params
    is_decoder return_dict output_attentions output_hidden_states
    assistant_confidence_threshold bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff exponential_decay_length_penalty
    forced_bos_token_id forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size
    num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_scores
    remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens target_lookbehind temperature
    top_k top_p typical_p
"""
READ, WITHOUT_EFFECT = frozenset(READ_KEYS.split()), frozenset(KEYS_WITHOUT_EFFECT.split())
# Keys of other architectures and of other software, with the values that leave this computation as it is. Null also
# does, for every key that is not in READ.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "activation": ("swiglu", "silu"),
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "embedding_multiplier": (1,),
    "is_causal": (True,),
    "is_encoder_decoder": (False,),
    "lm_head_multiplier": (1,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "partial_rotary_factor": (1,),
    "pruned_heads": ({},),
    "qk_layernorm": (False,),
    "qk_norm": (False,),
    "residual_multiplier": (1,),
    "rope_interleaved": (False,),
    "rotary_pct": (1,),
    "tf_legacy_loss": (False,),
    "tie_encoder_decoder": (False,),
    "use_bfloat16": (False,),
    "use_bidirectional_attention": (False,),
    "use_dynamic_ntk": (False,),
    "use_logn_attn": (False,),
    "use_mrope": (False,),
    "use_qk_norm": (False,),
}
ACTIVATIONS = ("silu", "swish")  # two names of one function
# Keys of TensorRT-LLM's config.json that change the computation, with the values that leave it as it is
TRTLLM_NEUTRAL: dict[str, tuple[object, ...]] = {
    "hidden_act": ACTIVATIONS,
    "position_embedding_type": ("rope_gpt_neox",),
    "rotary_pct": (1,),
    "attention_multiplier": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "output_multiplier_scale": (1,),
    "residual_mlp": (False,),
    "use_logn_attn": (False,),
}
DEFAULT_WINDOW = 4096  # transformers' sliding_window of Mistral, Qwen2 and Qwen3 when config.json has none
DEFAULT_MAX_WINDOW_LAYERS = 28


def check_keys(config: dict[str, Any], architecture: str, path: Path) -> None:
    """Raise CheckpointError, naming every key of config.json that may change the logits and is not converted."""
    refused = [
        f"'{key}' is {_short(value)} (only {expected} changes nothing)"
        for key, value in config.items()
        if (expected := _refusal(key, value, architecture))
    ]
    if refused:
        raise CheckpointError(
            f"{path}: {'; '.join(refused)}. What is not converted would silently change the model's answers. Expected "
            f"a plain {architecture}; serve this model with software that knows the key, or remove the key if you "
            f"know that it has no effect."
        )


def check_trtllm_keys(config: dict[str, Any], path: Path) -> None:
    """Raise CheckpointError when a TensorRT-LLM config.json describes another computation than ours."""
    for key, neutral in TRTLLM_NEUTRAL.items():
        if key in config and config[key] not in neutral:
            raise CheckpointError(
                f"{path}: '{key}' is {config[key]!r}; only {' or '.join(map(repr, neutral))} is supported."
            )


def _refusal(key: str, value: object, architecture: str) -> str:
    """The values that would change nothing, in words, if `value` is none of them; otherwise empty."""
    if key == "hidden_act":
        return "" if value in ACTIVATIONS else " or ".join(map(repr, ACTIVATIONS))
    if key in ("attention_bias", "mlp_bias"):
        is_read = architecture == "LlamaForCausalLM"
        is_without_effect = (key, architecture) == (
            "attention_bias",
            "Qwen2ForCausalLM",
        )  # q, k, v always have one
        return "" if is_read or is_without_effect or value in (False, None) else "false"
    if key in READ or key in WITHOUT_EFFECT or value is None:
        return ""
    neutral = NEUTRAL.get(key, ())
    if any(
        value == harmless and isinstance(value, bool) == isinstance(harmless, bool) for harmless in neutral
    ):
        return ""
    return " or ".join(["null", *map(repr, neutral)])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_attention_window(config: dict[str, Any], architecture: str, positions: float, path: Path) -> None:
    """Raise CheckpointError when a layer attends to fewer tokens than a sequence can have, `positions`.

    The rules are those of transformers' MistralConfig and Qwen2Config: Qwen's window needs use_sliding_window, and
    begins at layer max_window_layers unless layer_types lists the layers; Mistral reads neither.
    """
    default = None if architecture == "LlamaForCausalLM" else DEFAULT_WINDOW
    window, layer_types = config.get("sliding_window", default), config.get("layer_types")
    num_layers = config.get("num_hidden_layers", 0)
    if layer_types is not None:
        if architecture == "MistralForCausalLM" or layer_types != ["full_attention"] * num_layers:
            raise CheckpointError(
                f"{path}: 'layer_types' is {_short(layer_types)}; expected null"
                + (
                    ""
                    if architecture == "MistralForCausalLM"
                    else f", or 'full_attention' {num_layers} times"
                )
                + ". Only full attention is converted."
            )
        return
    if architecture != "MistralForCausalLM":
        switch = config.get("use_sliding_window", architecture == "LlamaForCausalLM")
        if not isinstance(switch, bool):
            raise CheckpointError(f"{path}: 'use_sliding_window' is {switch!r}; expected true or false.")
        first = config.get("max_window_layers", DEFAULT_MAX_WINDOW_LAYERS)
        is_qwen = architecture != "LlamaForCausalLM"
        if not switch or (is_qwen and isinstance(first, int) and first >= num_layers):
            return
    if window is None or (isinstance(window, int) and window >= positions):
        return
    source = "" if "sliding_window" in config else " (missing: transformers assumes it)"
    raise CheckpointError(
        f"{path}: 'sliding_window' is {window!r}{source}, less than the {positions:,.0f} tokens of the longest "
        f"sequence. "
        f"Only full attention is converted; expected null, or at least that length. Lower max_position_embeddings to "
        f"{window} if shorter sequences are enough."
    )
