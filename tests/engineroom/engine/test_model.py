"""The decoder before compilation, against transformers: each model family, in float32 and bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engineroom.checkpoint import Mapping, ShardedModel, Sharding, convert, open_checkpoint
from engineroom.engine.model import Decoder, argmax_rows, fuse, meta_decoder

LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 96, "vocab_size": 101, "max_position_embeddings": 128}
FAMILIES = {
    "llama": {"model_type": "llama"},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama31": {
        "model_type": "llama",
        "rope_parameters": LLAMA31 | {"rope_theta": 500000.0, "original_max_position_embeddings": 16},
    },
    "linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    },
    "mistral": {"model_type": "mistral", "head_dim": 32, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
}
NUM_TOKENS = 40
TOKEN_IDS = torch.arange(NUM_TOKENS) * 7 % 101


def load_decoder(folder: Path, dtype: str) -> Decoder:
    checkpoint = open_checkpoint(convert(folder, folder.parent / f"out-{dtype}", dtype=dtype))
    decoder = Decoder(checkpoint.model)
    decoder.load_state_dict(fuse(checkpoint.load(0)), strict=True)
    return decoder


def all_logits(decoder: Decoder, dtype: torch.dtype) -> torch.Tensor:
    """float32 [NUM_TOKENS, vocab_size]; the KV cache lies in blocks 2, 5 and 1, of 16 tokens each."""
    model = decoder.model
    shape = (6, 16, model.num_key_value_heads, model.head_size)
    k_caches, v_caches = [[torch.zeros(shape, dtype=dtype) for _ in range(2)] for _ in "kv"]
    block_tables, positions = torch.tensor([[2, 5, 1]]), torch.arange(NUM_TOKENS)
    slot_mapping = block_tables[0, positions // 16] * 16 + positions % 16
    sequence_indices = torch.zeros_like(positions)
    logits, greedy_token_ids = decoder(
        TOKEN_IDS, positions, slot_mapping, block_tables, sequence_indices, positions, k_caches, v_caches
    )
    assert greedy_token_ids.equal(logits.argmax(-1))
    return logits


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(tmp_path: Path, family: str, dtype: str, tolerance: float) -> None:
    """Errors are relative to the largest logit; transformers computes the reference in float32 for both dtypes."""
    torch.manual_seed(3)
    reference = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**SIZES | FAMILIES[family]), dtype=torch.float32
    )
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.1 if "norm" not in name else 1))
    reference.save_pretrained(tmp_path / "hf")
    with torch.inference_mode():
        expected = reference(TOKEN_IDS[None]).logits[0]
        actual = all_logits(load_decoder(tmp_path / "hf", dtype), getattr(torch, dtype))
    assert actual.dtype == torch.float32
    assert (actual - expected).abs().max() / expected.abs().max() < tolerance
    if dtype == "float32":
        sharded = convert(
            tmp_path / "hf", tmp_path / "sharded", dtype=dtype, sharding=Sharding(Mapping(4, 2))
        )
        logits = ShardedModel(open_checkpoint(sharded)).logits(TOKEN_IDS.tolist())
        assert (logits - expected).abs().max() / expected.abs().max() < tolerance


@pytest.mark.parametrize("packed", [False, True])
def test_the_decoder_on_the_meta_device_has_shapes_and_dtypes_only(tmp_path: Path, packed: bool) -> None:
    """Rotary frequencies stay float32 in a bfloat16 model; the embedding is never packed."""
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES | FAMILIES["llama"])).save_pretrained(
        tmp_path / "hf"
    )
    model = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out", dtype="bfloat16")).model
    decoder = meta_decoder(model, packed)
    tensors = {**decoder.state_dict(), "inv_freq": decoder.inv_freq}
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert {name for name, tensor in tensors.items() if tensor.dtype == torch.float32} == {"inv_freq"}
    assert tensors["transformer.vocab_embedding.weight"].shape == (101, 64)
    assert tensors["lm_head.weight"].shape == ((7, 64, 16) if packed else (101, 64))


@pytest.mark.parametrize("vocab_size", [1024, 1000])
def test_argmax_in_two_steps_is_argmax(vocab_size: int) -> None:
    logits = torch.randn(5, vocab_size, generator=torch.Generator().manual_seed(1))
    assert argmax_rows(logits).equal(logits.argmax(-1))
