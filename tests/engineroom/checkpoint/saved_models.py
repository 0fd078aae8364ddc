"""Small random models as transformers saves them, and their logits by transformers and by our conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from engineroom.checkpoint import (
    ShardedModel,
    convert,
    open_checkpoint,
    reference_logits,
)

TOKEN_IDS = [1, 2, 3, 4, 5, 6, 7, 8] * 3
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 128}
ABSENT: Any = "absent"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
FILE = "model.safetensors"
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def write(folder: Path, model_type: str = "llama", seed: int = 0, **config: Any) -> Path:
    """A model with random weights, biases and norms too, as transformers saves it."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES, **config)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ABSENT}))


def ours(folder: Path, output: Path) -> torch.Tensor:
    return ShardedModel(open_checkpoint(convert(folder, output, dtype="float32"))).logits(TOKEN_IDS)


def load_report(folder: Path) -> dict[str, Any]:
    """What transformers says about a folder: its missing_keys, unexpected_keys and so on."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    report: dict[str, Any] = loaded[1]
    return report


def assert_same(folder: Path, output: Path) -> None:
    expected = reference_logits(folder, TOKEN_IDS)
    actual = ours(folder, output)
    difference = (actual.cpu() - expected).abs().max().item()
    assert difference <= 1e-4 * expected.abs().max().item(), difference
