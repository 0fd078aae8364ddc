"""A conversion with the most common mistake; all of its shapes are right."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint.checkpoint import open_checkpoint
from engineroom.kit.output import output_directory


def fuse_then_shard(correct_dir: str | Path, output_dir: str | Path) -> Path:
    """Copy a checkpoint of tp_size > 1, pp_size 1 as if [q; k; v] had been fused first and sharded afterwards.

    Raises CheckpointError when `correct_dir` is no checkpoint, OutputError when `output_dir` cannot be written.
    """
    checkpoint = open_checkpoint(correct_dir)
    ranks = [checkpoint.load(rank) for rank in range(len(checkpoint.ranks))]
    q_rows = checkpoint.model.num_attention_heads * checkpoint.model.head_size // len(ranks)
    for layer in range(checkpoint.model.num_hidden_layers):
        name = f"transformer.layers.{layer}.attention.qkv.weight"
        q = torch.cat([rank[name][:q_rows] for rank in ranks])  # [heads * head_size, hidden_size]
        kv = [rank[name][q_rows:].chunk(2) for rank in ranks]
        k, v = (
            torch.cat([k for k, _ in kv]),
            torch.cat([v for _, v in kv]),
        )  # [kv_heads * head_size, hidden_size]
        for rank, rows in zip(ranks, torch.cat([q, k, v]).chunk(len(ranks)), strict=True):
            rank[name] = rows.contiguous()
    with output_directory(output_dir, checkpoint.nbytes) as folder:
        for rank, tensors in enumerate(ranks):
            save_file(tensors, folder / f"rank{rank}.safetensors")
        shutil.copy(checkpoint.directory / "config.json", folder / "config.json")
    return Path(output_dir)
