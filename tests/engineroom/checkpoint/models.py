"""Small random Hugging Face folders, of any family and shape, written without transformers."""

from __future__ import annotations

import json
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Layout, Mapping, convert
from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.plan import sources
from engineroom.checkpoint.source import INDEX

LAYOUT = Layout(Mapping(2))
SMALL = ModelConfig("LlamaForCausalLM", 32, 3, 4, 2, 8, 48, 50)


def config(model: ModelConfig, **more: object) -> dict[str, object]:
    """Its config.json as Hugging Face spells it."""
    plain = {
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
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64,
        "torch_dtype": "bfloat16",
    }
    return plain | more


def write(
    folder: Path, model: ModelConfig = SMALL, files: int = 1, dtype: torch.dtype = torch.bfloat16
) -> dict:
    """Write the folder; the tensors that are in it."""
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in sources(model).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(model)))
    names, index = sorted(weights), {}
    for number in range(files):
        mine = names[number::files]
        file = "model.safetensors" if files == 1 else f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        save_file({name: weights[name] for name in mine}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(mine, file)
    if files > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return weights


def convert_once(source: Path, output: Path, begun: Event) -> None:
    """For a process of its own: it says that it begins, and converts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun.set()
    convert(source, output, layout=LAYOUT)
