"""Logits straight from rank files: every rank computes its share, and the shares are summed as an all-reduce would.

Plain PyTorch in float32, to prove a conversion and to show what each rank does; not an engine.
"""

from __future__ import annotations

import torch
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from labs.checkpoint.checkpoint import Checkpoint
from labs.checkpoint.errors import CheckpointError

Weights = dict[str, torch.Tensor]


class Forward:
    """A Llama-like checkpoint (rotary embedding without scaling) with its weights in memory as float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for a checkpoint with rope scaling or with q/k norms."""
        self.config, self.model, self.layout = checkpoint.config, checkpoint.model, checkpoint.layout
        if self.config.get("rotary_scaling") or self.model.qk_layernorm:
            raise CheckpointError(
                "Forward knows neither rope scaling nor q/k norms; use it with the course model."
            )
        self.ranks = [
            {name: tensor.float() for name, tensor in checkpoint.load(rank).items()}
            for rank in range(len(checkpoint.ranks))
        ]

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> torch.Tensor:
        """float32 [len(tokens), vocab_size]."""
        mapping = self.layout.mapping
        stages = [self.ranks[p * mapping.tp_size : (p + 1) * mapping.tp_size] for p in range(mapping.pp_size)]
        x = self.embed(stages[0], torch.tensor(tokens))
        for stage, ranks in enumerate(stages):
            layers = mapping.pp_layers(stage * mapping.tp_size, self.model.num_hidden_layers)
            for local in range(len(layers)):
                x = self.layer(ranks, f"transformer.layers.{local}.", x)
        x = self.norm(x, stages[-1][0]["transformer.ln_f.weight"])
        return torch.cat([linear(x, rank["lm_head.weight"]) for rank in stages[-1]], -1)[
            :, : self.model.vocab_size
        ]

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
        x = x + torch.stack([self.attention(rank, f"{prefix}attention.", h) for rank in ranks]).sum(0)
        h = self.norm(x, ranks[0][f"{prefix}post_layernorm.weight"])
        return x + torch.stack([mlp(rank, f"{prefix}mlp.", h) for rank in ranks]).sum(0)

    def attention(self, rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
        """This rank's heads. x [tokens, hidden] -> its part of the sum, the same shape."""
        heads = self.model.num_attention_heads // self.layout.mapping.tp_size
        bias = rank.get(f"{prefix}qkv.bias")
        qkv = (
            linear(x, rank[f"{prefix}qkv.weight"], bias)
            .unflatten(-1, (-1, self.model.head_size))
            .transpose(0, 1)
        )
        q, k, v = qkv.split([heads, (len(qkv) - heads) // 2, (len(qkv) - heads) // 2])
        q, k = self.rotate(q), self.rotate(k)
        mixed = scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
        return linear(mixed.transpose(0, 1).flatten(1), rank[f"{prefix}dense.weight"])

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding, halves not interleaved (gpt_neox). x [heads, tokens, head_size]."""
        half = self.model.head_size // 2
        frequencies = self.config["rotary_base"] ** (-torch.arange(half) / half)
        angle = torch.arange(x.shape[1])[:, None] * frequencies
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, weight.shape, weight, self.config["norm_epsilon"])


def mlp(rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    """The gated MLP in TensorRT-LLM's names: silu(fc) * gate. x [tokens, hidden] -> this rank's part of the sum."""
    inner = silu(linear(x, rank[f"{prefix}fc.weight"])) * linear(x, rank[f"{prefix}gate.weight"])
    return linear(inner, rank[f"{prefix}proj.weight"])
