"""Logits straight from rank files: every rank computes its share, and the shares are summed as an all-reduce would.

Plain PyTorch in float32, to prove a conversion and to show what each rank does; not an engine.
"""

from __future__ import annotations

import torch
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from engineroom.checkpoint.checkpoint import Checkpoint

Weights = dict[str, torch.Tensor]


class Forward:
    """A checkpoint with its weights in memory as float32, on the GPU if there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for a rope scaling that is not known here."""
        self.model, self.layout = checkpoint.model, checkpoint.layout
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.inverse_frequencies = self.model.inverse_frequencies().to(self.device)
        self.ranks = [
            {name: tensor.float().to(self.device) for name, tensor in checkpoint.load(rank).items()}
            for rank in range(len(checkpoint.ranks))
        ]

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """float32 [len(tokens), vocab_size], on the CPU."""
        mapping = self.layout.mapping
        stages = [self.ranks[p * mapping.tp_size : (p + 1) * mapping.tp_size] for p in range(mapping.pp_size)]
        x = self.embed(stages[0], torch.tensor(tokens, device=self.device))
        for stage, ranks in enumerate(stages):
            layers = mapping.pp_layers(stage * mapping.tp_size, self.model.num_hidden_layers)
            for local in range(len(layers)):
                x = self.layer(ranks, f"transformer.layers.{local}.", x)
        x = self.norm(x, stages[-1][0]["transformer.ln_f.weight"])
        found = torch.cat([linear(x, rank["lm_head.weight"]) for rank in stages[-1]], -1)
        return found[:, : self.model.vocab_size].cpu()

    def greedy(self, tokens: list[int], most: int, stop: int | None = None) -> list[int]:
        """Up to `most` tokens that follow, each the likeliest; ends after `stop`."""
        answer: list[int] = []
        while len(answer) < most and (not answer or answer[-1] != stop):
            answer.append(int(self.logits(tokens + answer)[-1].argmax()))
        return answer

    def embed(self, ranks: list[Weights], tokens: torch.Tensor) -> torch.Tensor:
        tables = [rank["transformer.vocab_embedding.weight"] for rank in ranks]
        if self.layout.use_parallel_embedding:
            return embedding(tokens, torch.cat(tables, self.layout.embedding_sharding_dim))
        return embedding(tokens, tables[0])

    def layer(self, ranks: list[Weights], prefix: str, x: torch.Tensor) -> torch.Tensor:
        """Two sums over ranks a layer: these are the two all-reduces of tensor parallelism."""
        h = self.norm(x, ranks[0][f"{prefix}input_layernorm.weight"])
        x = x + all_reduce(
            ranks, f"{prefix}attention.dense.", [self.attention(r, f"{prefix}attention.", h) for r in ranks]
        )
        h = self.norm(x, ranks[0][f"{prefix}post_layernorm.weight"])
        return x + all_reduce(ranks, f"{prefix}mlp.proj.", [mlp(rank, f"{prefix}mlp.", h) for rank in ranks])

    def attention(self, rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
        """This rank's heads. x [tokens, hidden] -> [tokens, heads of this rank * head_size]."""
        heads = self.model.num_attention_heads // self.layout.mapping.tp_size
        fused = linear(x, rank[f"{prefix}qkv.weight"], rank.get(f"{prefix}qkv.bias"))
        qkv = fused.unflatten(-1, (-1, self.model.head_size)).transpose(0, 1)
        q, k, v = qkv.split([heads, (len(qkv) - heads) // 2, (len(qkv) - heads) // 2])
        if self.model.qk_layernorm:
            q = self.norm(q, rank[f"{prefix}q_layernorm.weight"])
            k = self.norm(k, rank[f"{prefix}k_layernorm.weight"])
        q, k = self.rotate(q), self.rotate(k)
        mixed = scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
        return mixed.transpose(0, 1).flatten(1)

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding, halves not interleaved (gpt_neox). x [heads, tokens, head_size]."""
        angle = torch.arange(x.shape[1], device=self.device)[:, None] * self.inverse_frequencies
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, weight.shape, weight, self.model.norm_epsilon)


def mlp(rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    """The gated MLP in TensorRT-LLM's names: silu(fc) * gate. x [tokens, hidden] -> [tokens, this rank's share]."""
    fc, gate = (linear(x, rank[f"{prefix}{n}.weight"], rank.get(f"{prefix}{n}.bias")) for n in ("fc", "gate"))
    return silu(fc) * gate


def all_reduce(ranks: list[Weights], prefix: str, shares: list[torch.Tensor]) -> torch.Tensor:
    """The row-parallel product: each rank multiplies its share, the products are summed, the bias comes once."""
    total = torch.stack(
        [linear(x, rank[f"{prefix}weight"]) for rank, x in zip(ranks, shares, strict=True)]
    ).sum(0)
    return total + ranks[0].get(f"{prefix}bias", 0)
