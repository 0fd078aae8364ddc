"""A checkpoint of random weights in a public model's sizes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Sharding
from engineroom.checkpoint.config import from_hugging_face, to_trtllm
from engineroom.checkpoint.plan import plan

STANDARD_DEVIATION = 0.02


def random_checkpoint(model_dir: Path, output_dir: Path, dtype: str, device: str) -> Path:
    """Write a TensorRT-LLM checkpoint of one rank for `model_dir`/config.json and return `output_dir`.

    The values of matrices are normally distributed around 0, the weights of norms are 1. All are drawn on `device`.
    """
    config = json.loads((model_dir / "config.json").read_text())
    model = from_hugging_face(config, model_dir)
    weights = {}
    for target in plan(model, Sharding()):
        tensor = torch.ones(target.shape, dtype=getattr(torch, dtype), device=device)
        if tensor.dim() > 1:
            tensor.normal_(0, STANDARD_DEVIATION)
        weights[target.name] = tensor.cpu()
    output_dir.mkdir(parents=True)
    save_file(weights, output_dir / "rank0.safetensors")
    trtllm_config = to_trtllm(model, config, dtype, Sharding())
    (output_dir / "config.json").write_text(json.dumps(trtllm_config))
    return output_dir
