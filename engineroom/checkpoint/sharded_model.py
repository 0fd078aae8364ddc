"""Compute logits from rank files: each rank computes its share, and the shares are summed as in an all-reduce.

This is plain PyTorch in float32. It proves a conversion and shows what each rank computes; it is not an engine.
"""

from __future__ import annotations

import torch
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

from engineroom.checkpoint.checkpoint import Checkpoint

Weights = dict[str, torch.Tensor]


class ShardedModel:
    """A checkpoint with the weights of all its ranks in memory, as float32, on the GPU if there is one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for a rotary scaling that is not supported."""
        self.model, self.sharding = checkpoint.model, checkpoint.sharding
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.inverse_frequencies = self.model.inverse_frequencies().to(self.device)  # [head_size / 2]
        self.ranks: list[Weights] = [
            {name: tensor.float().to(self.device) for name, tensor in checkpoint.load(rank).items()}
            for rank in range(len(checkpoint.ranks))
        ]

    @torch.inference_mode()
    def logits(self, token_ids: list[int]) -> torch.Tensor:
        """Logits after each token, float32 [len(token_ids), vocab_size], on the CPU."""
        mapping = self.sharding.mapping
        stages = [self.ranks[p * mapping.tp_size : (p + 1) * mapping.tp_size] for p in range(mapping.pp_size)]
        x = self.embed(stages[0], torch.tensor(token_ids, device=self.device))  # [tokens, hidden_size]
        for stage, ranks in enumerate(stages):
            layers = mapping.pp_layers(stage * mapping.tp_size, self.model.num_hidden_layers)
            for local in range(len(layers)):
                x = self.layer(ranks, f"transformer.layers.{local}.", x)
        last_stage = stages[-1]
        x = self.norm(x, last_stage[0]["transformer.ln_f.weight"])
        logits = torch.cat([linear(x, rank["lm_head.weight"]) for rank in last_stage], -1)
        return logits[:, : self.model.vocab_size].cpu()

    def greedy(self, token_ids: list[int], max_tokens: int, stop: int | None = None) -> list[int]:
        """The greedy continuation of `token_ids`: at most `max_tokens` tokens, ending early with the token `stop`."""
        output: list[int] = []
        while len(output) < max_tokens and (not output or output[-1] != stop):
            output.append(int(self.logits(token_ids + output)[-1].argmax()))
        return output

    def embed(self, ranks: list[Weights], token_ids: torch.Tensor) -> torch.Tensor:
        """token_ids int64 [tokens] -> [tokens, hidden_size]."""
        tables = [rank["transformer.vocab_embedding.weight"] for rank in ranks]
        if self.sharding.use_parallel_embedding:
            return embedding(token_ids, torch.cat(tables, self.sharding.embedding_sharding_dim))
        return embedding(token_ids, tables[0])

    def layer(self, ranks: list[Weights], prefix: str, x: torch.Tensor) -> torch.Tensor:
        """x [tokens, hidden_size] -> the same shape. A layer has two all-reduces, as in tensor parallelism."""
        h = self.norm(x, ranks[0][f"{prefix}input_layernorm.weight"])
        shares = [self.attention(rank, f"{prefix}attention.", h) for rank in ranks]
        x = x + all_reduce(ranks, f"{prefix}attention.dense.", shares)
        h = self.norm(x, ranks[0][f"{prefix}post_layernorm.weight"])
        shares = [mlp(rank, f"{prefix}mlp.", h) for rank in ranks]
        return x + all_reduce(ranks, f"{prefix}mlp.proj.", shares)

    def attention(self, rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
        """Attention of this rank's heads: x [tokens, hidden_size] -> [tokens, heads of this rank * head_size]."""
        heads = self.model.num_attention_heads // self.sharding.mapping.tp_size
        fused = linear(x, rank[f"{prefix}qkv.weight"], rank.get(f"{prefix}qkv.bias"))
        qkv = fused.unflatten(-1, (-1, self.model.head_size)).transpose(0, 1)  # [heads, tokens, head_size]
        kv_heads = (len(qkv) - heads) // 2
        q, k, v = qkv.split([heads, kv_heads, kv_heads])
        if self.model.qk_layernorm:
            q = self.norm(q, rank[f"{prefix}q_layernorm.weight"])
            k = self.norm(k, rank[f"{prefix}k_layernorm.weight"])
        q, k = self.rotate(q), self.rotate(k)
        attended = scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
        return attended.transpose(0, 1).flatten(1)

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding: x [heads, tokens, head_size] -> the same shape.

        It pairs the two halves of a head, as gpt_neox does, not neighbouring elements.
        """
        angle = torch.arange(x.shape[1], device=self.device)[:, None] * self.inverse_frequencies
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm over the last dimension of x; weight [size of that dimension]."""
        return rms_norm(x, weight.shape, weight, self.model.norm_epsilon)


def mlp(rank: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    """The gated MLP in TensorRT-LLM's names, silu(fc) * gate.

    x [tokens, hidden_size] -> [tokens, intermediate_size / tp_size].
    """
    fc = linear(x, rank[f"{prefix}fc.weight"], rank.get(f"{prefix}fc.bias"))
    gate = linear(x, rank[f"{prefix}gate.weight"], rank.get(f"{prefix}gate.bias"))
    return silu(fc) * gate


def all_reduce(ranks: list[Weights], prefix: str, shares: list[torch.Tensor]) -> torch.Tensor:
    """The row-parallel product: each rank multiplies its share [tokens, inputs / tp_size], and the products are summed.

    Returns [tokens, outputs], with the bias added once.
    """
    products = [linear(x, rank[f"{prefix}weight"]) for rank, x in zip(ranks, shares, strict=True)]
    return torch.stack(products).sum(0) + ranks[0].get(f"{prefix}bias", 0)
