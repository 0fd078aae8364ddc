"""A checkpoint of random weights in a public model's sizes, and how fast the memory of a GPU is."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Layout, Mapping
from engineroom.checkpoint.config import from_hugging_face, to_trtllm
from engineroom.checkpoint.plan import plan


def random_checkpoint(source: Path, folder: Path, dtype: str, device: str) -> Path:
    """A TensorRT-LLM checkpoint of one rank for `source`/config.json; weights normal, deviation 0.02, norms 1."""
    config = json.loads((source / "config.json").read_text())
    model, kind = from_hugging_face(config, source), getattr(torch, dtype)
    folder.mkdir(parents=True)
    weights = {}
    for target in plan(model, Layout()):
        made = torch.ones(target.shape, dtype=kind, device=device)
        weights[target.name] = (made if len(target.shape) == 1 else made.normal_(0, 0.02)).cpu()
    save_file(weights, folder / "rank0.safetensors")
    written = to_trtllm(model, config, dtype, Mapping(), False, 0)
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def copy_bandwidth(gigabytes: int = 8, repeat: int = 20) -> float:
    """Bytes per second that a copy within the GPU's memory reads and writes; median."""
    source = torch.empty(gigabytes * 10**9 // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    rates = []
    for _ in range(repeat):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        rates.append(2 * source.nbytes / (begin.elapsed_time(end) / 1e3))
    return statistics.median(rates[1:])
