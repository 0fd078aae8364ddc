"""Small random Hugging Face folders, of any family and shape, written without transformers."""

from __future__ import annotations

import json
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Mapping, ModelConfig, Sharding, convert
from engineroom.checkpoint.plan import source_shapes
from engineroom.checkpoint.source import INDEX

TWO_RANKS = Sharding(Mapping(2))
SMALL = ModelConfig("LlamaForCausalLM", 32, 3, 4, 2, 8, 48, 50)


def config_json(model: ModelConfig) -> dict[str, object]:
    """The model's config.json as Hugging Face spells it."""
    return {
        "architectures": [model.architecture],
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": model.tie_word_embeddings,
        "attention_bias": model.attn_bias,
        "mlp_bias": model.mlp_bias,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rotary_base,
        "rope_scaling": model.rotary_scaling,
        "max_position_embeddings": 64,
        "torch_dtype": model.dtype,
    }


def write_model(
    folder: Path, model: ModelConfig = SMALL, num_files: int = 1, dtype: torch.dtype = torch.bfloat16
) -> dict[str, torch.Tensor]:
    """Write a Hugging Face folder; return its tensors by name."""
    generator = torch.Generator().manual_seed(7)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in source_shapes(model).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json(model)))
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for index in range(num_files):
        file_names = names[index::num_files]
        file = "model.safetensors"
        if num_files > 1:
            file = f"model-{index + 1:05d}-of-{num_files:05d}.safetensors"
        save_file({name: tensors[name] for name in file_names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(file_names, file)
    if num_files > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def convert_once(source: Path, output: Path, started: Event) -> None:
    """Set `started`, then convert to two ranks. The tests run this in a separate process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started.set()
    convert(source, output, sharding=TWO_RANKS)
