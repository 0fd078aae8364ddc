"""The layers of the decoder. model.py stacks them; kernels/ has the operators that they call.

Every layer of a step reads the same `AttentionMetadata`. While a graph is exported, each layer decides which kernels
the graph calls: on a CPU our own attention and products (kernels/cpu.py), on a GPU our own attention
(kernels/attention.py), and in the graph for a single token our own products (kernels/products.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engineroom.checkpoint import ModelConfig
from engineroom.engine.kernels import cpu

CONTEXT_SPLITS, GENERATION_SPLITS, SINGLE_SPLITS = 1, 4, 16  # GPU programs that share a sequence's KV blocks


class AttentionMetadata(NamedTuple):
    """Where the tokens of one step are in their sequences and in the KV cache; the names are vLLM's.

    Tokens of one sequence are neighbours. In a context step on a GPU, each sequence's tokens fill whole tiles of
    `tokens_per_tile`.
    """

    is_context: bool
    slot_mapping: Tensor  # int64 [num_tokens]: block id * tokens_per_block + offset, where k and v are stored
    block_tables: (
        Tensor  # int64 [num_sequences, max_blocks_per_sequence]: block ids in the order of positions
    )
    sequence_indices: Tensor  # int64 [num_tokens]: each token's row of block_tables
    positions: Tensor  # int64 [num_tokens]: attention reads positions 0 to this one


def is_single_token(x: Tensor) -> bool:
    """Whether x [num_tokens, hidden_size] is on a GPU and the graph is exported for one token."""
    return x.is_cuda and isinstance(x.shape[0], int) and x.shape[0] == 1


def tokens_per_tile(group_size: int) -> int:
    """Tokens of one sequence in one tile of the GPU attention kernel, for `group_size` query heads per KV head."""
    return max(1, 64 >> (group_size - 1).bit_length())


class Linear(nn.Module):
    """residual + norm(x) @ weight.T + bias, with uninitialised parameters.

    weight [out_features, in_features], or packed into panels [num_panels, in_features, 16] (kernels/cpu.py);
    bias [out_features] or None. `gated`: the first product of an MLP, whose weight is gate stacked on fc; the result is
    silu(fc) * gate.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, gated: bool = False) -> None:
        super().__init__()
        self.out_features = out_features
        self.gated = gated
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor, norm: RmsNorm | None = None, residual: Tensor | None = None) -> Tensor:
        """x [num_tokens, in_features] -> [num_tokens, out_features], or [num_tokens, out_features / 2] if gated.

        residual has the shape of the result.
        """
        if is_single_token(x):
            from engineroom.engine.kernels.products import linear

            norm_weight, eps = (norm.weight, norm.eps) if norm else (None, 0.0)
            return linear(x, self.weight, self.bias, norm_weight, eps, residual, self.gated)
        y = self._product(norm(x) if norm else x)
        if self.gated:
            gate, fc = y.chunk(2, -1)
            y = F.silu(fc) * gate
        return y if residual is None else residual + y

    def _product(self, x: Tensor) -> Tensor:
        is_packed = self.weight.dim() == 3
        if not is_packed:
            return F.linear(x, self.weight, self.bias)
        y = cpu.packed_linear(x.float(), self.weight)[:, : self.out_features].to(x.dtype)
        return y if self.bias is None else y + self.bias


class RmsNorm(nn.Module):
    """x / rms(x) * weight, computed in float32 as transformers does; weight [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] -> the same shape and dtype."""
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention over the paged KV cache, between the projections qkv and dense."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.num_heads = model.num_attention_heads
        self.num_kv_heads = model.num_key_value_heads
        self.head_size = model.head_size
        qkv_size = (self.num_heads + 2 * self.num_kv_heads) * self.head_size
        self.qkv = Linear(model.hidden_size, qkv_size, model.attn_bias)
        self.dense = Linear(self.num_heads * self.head_size, model.hidden_size, model.dense_bias)
        self.qk_layernorm = model.qk_layernorm
        if self.qk_layernorm:
            self.q_layernorm = RmsNorm(self.head_size, model.norm_epsilon)
            self.k_layernorm = RmsNorm(self.head_size, model.norm_epsilon)

    def forward(
        self,
        x: Tensor,
        norm: RmsNorm,
        rotary: tuple[Tensor, Tensor],
        metadata: AttentionMetadata,
        k_cache: Tensor,
        v_cache: Tensor,
    ) -> Tensor:
        """x + dense(attention(norm(x))), [num_tokens, hidden_size].

        rotary: cos and sin, each [num_tokens, 1, head_size / 2]. k_cache, v_cache [num_blocks, tokens_per_block,
        num_kv_heads, head_size] get the keys and values of this step's tokens, in place.
        """
        q = self._store_kv(x, norm, rotary, metadata, k_cache, v_cache)
        y = self._attend(q, metadata, k_cache, v_cache)
        return self.dense(y.flatten(1), residual=x)

    def _store_kv(
        self,
        x: Tensor,
        norm: RmsNorm,
        rotary: tuple[Tensor, Tensor],
        metadata: AttentionMetadata,
        k_cache: Tensor,
        v_cache: Tensor,
    ) -> Tensor:
        """Store the new keys and values in their slots; returns q [num_tokens, num_heads, head_size], rotated."""
        slot_mapping = metadata.slot_mapping
        if is_single_token(x) and not self.qk_layernorm:
            from engineroom.engine.kernels.products import qkv

            weights = (self.qkv.weight, self.qkv.bias, norm.weight, norm.eps)
            return qkv(x, *weights, *rotary, slot_mapping, k_cache, v_cache)
        heads = self.qkv(x, norm).unflatten(-1, (-1, self.head_size))
        q, k, v = heads.split([self.num_heads, self.num_kv_heads, self.num_kv_heads], 1)
        if self.qk_layernorm:
            q, k = self.q_layernorm(q), self.k_layernorm(k)
        if x.is_cuda:
            from engineroom.engine.kernels.attention import rotate_and_store

            return rotate_and_store(q, k, v, *rotary, slot_mapping, k_cache, v_cache)
        tokens_per_block = k_cache.shape[1]
        block_and_offset = (slot_mapping // tokens_per_block, slot_mapping % tokens_per_block)
        k_cache.index_put_(block_and_offset, apply_rotary_emb(k, *rotary))
        v_cache.index_put_(block_and_offset, v)
        return apply_rotary_emb(q, *rotary)

    def _attend(self, q: Tensor, metadata: AttentionMetadata, k_cache: Tensor, v_cache: Tensor) -> Tensor:
        """q [num_tokens, num_heads, head_size] -> the same shape.

        On a GPU, the fewer tokens a step has, the more programs share the KV blocks of one sequence.
        """
        sequences = (metadata.block_tables, metadata.sequence_indices, metadata.positions)
        if not q.is_cuda:
            return cpu.paged_attention(q, k_cache, v_cache, *sequences)
        from engineroom.engine.kernels.attention import paged_attention

        if metadata.is_context:
            tile = tokens_per_tile(self.num_heads // self.num_kv_heads)
            return paged_attention(q, k_cache, v_cache, *sequences, tile, CONTEXT_SPLITS)
        splits = SINGLE_SPLITS if is_single_token(q) else GENERATION_SPLITS
        return paged_attention(q, k_cache, v_cache, *sequences, 1, splits)


class GatedMlp(nn.Module):
    """x + proj(silu(fc) * gate), with gate and fc in one product, `fused_fc`, as in TensorRT-LLM's FusedGatedMLP."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.fused_fc = Linear(model.hidden_size, 2 * model.intermediate_size, model.mlp_bias, gated=True)
        self.proj = Linear(model.intermediate_size, model.hidden_size, model.mlp_bias)

    def forward(self, x: Tensor, norm: RmsNorm) -> Tensor:
        """x [num_tokens, hidden_size] -> the same shape."""
        return self.proj(self.fused_fc(x, norm), residual=x)


class DecoderLayer(nn.Module):
    """Attention, then the MLP; each adds its result to x [num_tokens, hidden_size]."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(model.hidden_size, model.norm_epsilon)
        self.post_layernorm = RmsNorm(model.hidden_size, model.norm_epsilon)
        self.attention = Attention(model)
        self.mlp = GatedMlp(model)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        metadata: AttentionMetadata,
        k_cache: Tensor,
        v_cache: Tensor,
    ) -> Tensor:
        """The arguments and the result are those of `Attention.forward`."""
        x = self.attention(x, self.input_layernorm, rotary, metadata, k_cache, v_cache)
        return self.mlp(x, self.post_layernorm)


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x[i], x[i + head_size / 2]), the layout that TensorRT-LLM calls rope_gpt_neox.

    x [num_tokens, num_heads, head_size]; cos, sin [num_tokens, 1, head_size / 2].
    """
    x1, x2 = x.chunk(2, -1)
    return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], -1)
