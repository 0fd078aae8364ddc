"""A key of config.json that may change the logits is read or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from engineroom.checkpoint import CheckpointError, ModelConfig, convert, open_checkpoint
from engineroom.checkpoint.config import FAMILIES, from_hugging_face, from_trtllm
from engineroom.checkpoint.config_keys import NEUTRAL, READ, WITHOUT_EFFECT
from tests.engineroom.checkpoint.models import config_json, write_model
from tests.engineroom.checkpoint.popular_models import POPULAR_MODELS, REFUSED

CONFIGS = {
    name: config_json(ModelConfig(name, 32, 3, 4, 2, 8, 48, 50, attn_bias=name == "Qwen2ForCausalLM"))
    for name in FAMILIES
}
PATH = Path("config.json")
VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.lists(st.integers())
)
UNREAD = [
    "attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling", "attention_multiplier",
    "embedding_multiplier", "residual_multiplier", "partial_rotary_factor", "rotary_pct", "clip_qkv", "qk_norm",
    "use_qk_norm", "num_experts", "num_local_experts", "no_rope_layers", "attn_temperature_tuning", "scale_emb",
    "query_pre_attn_scalar", "auto_map", "text_config", "per_layer_config", "is_causal", "attention_chunk_size",
    "alibi", "parallel_attn", "layer_norm_epsilon", "dual_chunk_attention_config", "sliding_window_pattern",
]  # fmt: skip


@pytest.mark.parametrize("name", POPULAR_MODELS)
def test_popular_models_are_convertible_or_refused_by_name(name: str) -> None:
    config = dict(POPULAR_MODELS[name])
    refused = config.pop(REFUSED, None)
    if refused:
        with pytest.raises(CheckpointError, match=refused):
            from_hugging_face(config, PATH)
        return
    model = from_hugging_face(config, PATH)
    reference = AutoConfig.for_model(**config)  # the same facts as transformers reads them
    assert model.rotary_base == reference.rope_parameters["rope_theta"]
    assert (model.rotary_scaling or {}).get("factor") == reference.rope_parameters.get("factor")
    head_size = getattr(reference, "head_dim", None) or reference.hidden_size // reference.num_attention_heads
    assert model.head_size == head_size
    assert model.num_key_value_heads == reference.num_key_value_heads
    assert model.tie_word_embeddings == reference.tie_word_embeddings
    assert f"torch.{model.dtype}" == str(reference.dtype)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(FAMILIES), st.sampled_from(UNREAD) | st.text(min_size=1, max_size=20), VALUES)
def test_an_unknown_key_is_refused_by_name(architecture: str, key: str, value: object) -> None:
    config = CONFIGS[architecture] | {key: value}
    is_neutral = any(value == neutral and type(value) is not bool for neutral in NEUTRAL.get(key, ()))
    is_neutral |= any(value is neutral for neutral in NEUTRAL.get(key, ()))
    if key in READ | WITHOUT_EFFECT or is_neutral:
        return
    with pytest.raises(CheckpointError) as caught:
        from_hugging_face(config, PATH)
    assert f"'{key}' is " in str(caught.value)


def test_every_key_is_named_at_once() -> None:
    config = CONFIGS["LlamaForCausalLM"] | dict.fromkeys(UNREAD, 7)
    with pytest.raises(CheckpointError) as caught:
        from_hugging_face(config, PATH)
    assert all(f"'{key}' is 7" in str(caught.value) for key in UNREAD)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_values_that_change_nothing_are_accepted(architecture: str) -> None:
    config = CONFIGS[architecture]
    expected = from_hugging_face(config, PATH)
    for key, neutral in NEUTRAL.items():
        for value in (*neutral, None):
            assert from_hugging_face(config | {key: value}, PATH) == expected, key
    assert from_hugging_face(config | dict.fromkeys(UNREAD), PATH) == expected  # null
    assert from_hugging_face(config | dict.fromkeys(WITHOUT_EFFECT, 0.5), PATH) == expected


def test_the_lists_do_not_overlap() -> None:
    assert not READ & WITHOUT_EFFECT and not (READ | WITHOUT_EFFECT) & NEUTRAL.keys()


def test_true_is_not_one() -> None:
    for key, value in (("logit_scale", True), ("num_experts", False), ("qk_norm", 0)):
        with pytest.raises(CheckpointError, match=f"'{key}' is {value}"):
            from_hugging_face(CONFIGS["LlamaForCausalLM"] | {key: value}, PATH)


@pytest.mark.parametrize("key", ["tie_word_embeddings", "attention_bias", "mlp_bias"])
@pytest.mark.parametrize("value", ["false", 1, 0.0, []])
def test_a_flag_is_true_or_false(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"'{key}' is .*expected true or false"):
        from_hugging_face(CONFIGS["LlamaForCausalLM"] | {key: value}, PATH)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_act", "gelu"), ("rotary_pct", 0.5), ("embedding_multiplier", 12.0), ("residual_mlp", True)],
)
def test_a_checkpoint_of_another_computation_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    write_model(tmp_path / "hf")
    checkpoint = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out"))
    assert checkpoint.config["hidden_act"] == "silu"
    with pytest.raises(CheckpointError, match=f"'{key}' is {value!r}; only .* is supported"):
        from_trtllm(checkpoint.config | {key: value}, PATH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_without_a_dtype_that_of_the_weights_counts(tmp_path: Path, dtype: torch.dtype) -> None:
    write_model(tmp_path / "hf", dtype=dtype)
    path = tmp_path / "hf" / "config.json"
    config = json.loads(path.read_text())
    del config["torch_dtype"]
    path.write_text(json.dumps(config))
    written = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out")).model.dtype
    assert written == ("bfloat16" if dtype == torch.bfloat16 else "float16")
