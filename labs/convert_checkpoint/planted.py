"""A conversion with the mistake that everybody makes once; every shape in it is right."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint.checkpoint import open_checkpoint
from engineroom.kit.output import output_directory


def fuse_then_cut(right: str | Path, output_dir: str | Path) -> Path:
    """A copy of a tp_size > 1, pp_size 1 checkpoint whose [q; k; v] was fused whole and cut into ranks afterwards.

    Raises CheckpointError when `right` is no checkpoint, OutputError when `output_dir` is taken.
    """
    checkpoint = open_checkpoint(right)
    ranks = [checkpoint.load(rank) for rank in range(len(checkpoint.ranks))]
    q = checkpoint.model.num_attention_heads * checkpoint.model.head_size // len(ranks)
    for name in [name for name in ranks[0] if name.endswith("attention.qkv.weight")]:
        parts = [(rank[name][:q], *rank[name][q:].chunk(2)) for rank in ranks]
        fused = torch.cat([torch.cat(x) for x in zip(*parts, strict=True)])
        for rank, cut in zip(ranks, fused.chunk(len(ranks)), strict=True):
            rank[name] = cut.contiguous()
    with output_directory(
        output_dir, sum(place.nbytes for rank in checkpoint.ranks for place in rank.values())
    ) as out:
        for number, rank in enumerate(ranks):
            save_file(rank, out / f"rank{number}.safetensors")
        shutil.copy(checkpoint.directory / "config.json", out / "config.json")
    return Path(output_dir)
