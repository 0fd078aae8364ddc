"""The decoder before compilation, against transformers: each family, float32 and bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engineroom.checkpoint import Forward, Layout, Mapping, convert, open_checkpoint
from engineroom.engine.model import Decoder, fuse

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
TOKENS = torch.arange(40) * 7 % 101


def decoder(folder: Path, dtype: str) -> Decoder:
    checkpoint = open_checkpoint(convert(folder, folder.parent / f"out-{dtype}", dtype=dtype))
    made = Decoder(checkpoint.model, checkpoint.config).to(getattr(torch, dtype)).requires_grad_(False)
    made.load_state_dict(fuse(checkpoint.load(0)), strict=True)
    made.inv_freq = Decoder(checkpoint.model, checkpoint.config).inv_freq
    return made


def run(made: Decoder, dtype: torch.dtype) -> torch.Tensor:
    """40 tokens over pages 2, 5, 1 of 16; all logits."""
    model = made.model
    pools = [
        [torch.zeros(6, 16, model.num_key_value_heads, model.head_size, dtype=dtype) for _ in range(2)]
        for _ in "kv"
    ]
    table, at = torch.tensor([[2, 5, 1]]), torch.arange(40)
    slots = table[0, at // 16] * 16 + at % 16
    logits, likeliest = made(TOKENS, at, slots, table, 0 * at, at, *pools)
    assert likeliest.equal(logits.argmax(-1))
    return logits


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(tmp_path: Path, family: str, dtype: str, tolerance: float) -> None:
    """Relative to the largest logit; transformers computes in float32, as the reference for both."""
    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**SIZES | FAMILIES[family]), dtype=torch.float32
    )
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.1 if "norm" not in name else 1))
    theirs.save_pretrained(tmp_path / "hf")
    with torch.inference_mode():
        want = theirs(TOKENS[None]).logits[0]
        got = run(decoder(tmp_path / "hf", dtype), getattr(torch, dtype))
    assert got.dtype == torch.float32
    assert (got - want).abs().max() / want.abs().max() < tolerance
    if dtype == "float32":
        cut = convert(tmp_path / "hf", tmp_path / "cut", dtype=dtype, layout=Layout(Mapping(4, 2)))
        plain = Forward(open_checkpoint(cut)).logits(TOKENS.tolist())
        assert (plain - want).abs().max() / want.abs().max() < tolerance
