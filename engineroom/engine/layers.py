"""The layers of the decoder; `Step` is what all of them share in one step.

Our own kernels do the attention, and on a CPU the matrix products, on a GPU those of one token (`alone`); that is
decided while the graph is exported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engineroom.checkpoint import ModelConfig
from engineroom.engine.kernels import cpu


def alone(x: Tensor) -> bool:
    """Is this one row on a GPU, and known to be one when the graph is exported?"""
    return x.is_cuda and isinstance(x.shape[0], int) and x.shape[0] == 1


def tile(group: int) -> int:
    """Tokens of one sequence that a GPU kernel takes together, if `group` query heads share a KV head."""
    return max(1, 64 >> (group - 1).bit_length())


class Linear(nn.Module):
    """add + norm(x) · weight + bias; no initialisation, as the values come from a checkpoint.

    weight [out, in], or in panels (kernels/cpu.py); bias [out] or none. `gated` is the first product of an MLP: gate
    above fc, silu(fc) * gate.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False, gated: bool = False) -> None:
        super().__init__()
        self.weight, self.gated, self.outputs = nn.Parameter(torch.empty(outputs, inputs)), gated, outputs
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor, norm: RmsNorm | None = None, add: Tensor | None = None) -> Tensor:
        if alone(x):
            from engineroom.engine.kernels.products import linear

            weight, eps = (norm.weight, norm.eps) if norm else (None, 0.0)
            return linear(x, self.weight, self.bias, weight, eps, add, self.gated)
        y = self.product(norm(x) if norm else x)
        if self.gated:
            gate, fc = y.chunk(2, -1)
            y = F.silu(fc) * gate
        return y if add is None else add + y

    def product(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        y = cpu.packed_linear(x.float(), self.weight)[:, : self.outputs].to(x.dtype)
        return y if self.bias is None else y + self.bias


class RmsNorm(nn.Module):
    """Computed in float32, as transformers does; weight [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, model: ModelConfig, eps: float) -> None:
        super().__init__()
        self.heads, self.kv, self.size = model.num_attention_heads, model.num_key_value_heads, model.head_size
        self.qkv = Linear(model.hidden_size, (self.heads + 2 * self.kv) * self.size, model.attn_bias)
        self.dense = Linear(self.heads * self.size, model.hidden_size, model.dense_bias)
        if model.qk_layernorm:
            self.q_layernorm, self.k_layernorm = RmsNorm(self.size, eps), RmsNorm(self.size, eps)

    def forward(
        self,
        x: Tensor,
        norm: RmsNorm,
        rotary: tuple[Tensor, Tensor],
        step: Step,
        keys: Tensor,
        values: Tensor,
    ) -> Tensor:
        """x [tokens, hidden] -> the same shape, x added; attention reads every page of the tables."""
        q = self.queries(x, norm, rotary, step, keys, values)
        return self.dense(self.attend(q, step, keys, values).flatten(1), add=x)

    def queries(
        self,
        x: Tensor,
        norm: RmsNorm,
        rotary: tuple[Tensor, Tensor],
        step: Step,
        keys: Tensor,
        values: Tensor,
    ) -> Tensor:
        """q [tokens, heads, size], rotated; the new keys and values go to their slots of the pages."""
        normed = hasattr(self, "q_layernorm")
        if alone(x) and not normed:
            from engineroom.engine.kernels.products import qkv

            weights = (self.qkv.weight, self.qkv.bias, norm.weight, norm.eps)
            return qkv(x, *weights, *rotary, step.slots, keys, values)
        q, k, v = self.qkv(x, norm).unflatten(-1, (-1, self.size)).split([self.heads, self.kv, self.kv], 1)
        if normed:
            q, k = self.q_layernorm(q), self.k_layernorm(k)
        if x.is_cuda:
            from engineroom.engine.kernels.attention import rotate_and_store

            return rotate_and_store(q, k, v, *rotary, step.slots, keys, values)
        place = (step.slots // keys.shape[1], step.slots % keys.shape[1])
        keys.index_put_(place, rotate(k, *rotary))
        values.index_put_(place, v)
        return rotate(q, *rotary)

    def attend(self, q: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        """q [tokens, heads, size] -> the same; on a GPU, the fewer sequences, the more programs share their pages."""
        pages = (keys, values, step.tables, step.owners, step.positions)
        if not q.is_cuda:
            return cpu.paged_attention(q, *pages)
        from engineroom.engine.kernels.attention import paged_attention

        if step.context:
            return paged_attention(q, *pages, tile(self.heads // self.kv), 1)
        return paged_attention(q, *pages, 1, 16 if alone(q) else 4)


class GatedMlp(nn.Module):
    """x + proj(silu(fc) * gate), with gate and fc in one product: TensorRT-LLM's FusedGatedMLP, its `fused_fc`."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.fused_fc = Linear(model.hidden_size, 2 * model.intermediate_size, model.mlp_bias, gated=True)
        self.proj = Linear(model.intermediate_size, model.hidden_size, model.mlp_bias)

    def forward(self, x: Tensor, norm: RmsNorm) -> Tensor:
        return self.proj(self.fused_fc(x, norm), add=x)


class Layer(nn.Module):
    def __init__(self, model: ModelConfig, eps: float) -> None:
        super().__init__()
        self.input_layernorm, self.post_layernorm = (
            RmsNorm(model.hidden_size, eps),
            RmsNorm(model.hidden_size, eps),
        )
        self.attention, self.mlp = Attention(model, eps), GatedMlp(model)

    def forward(self, x: Tensor, *cache: Any) -> Tensor:
        return self.mlp(self.attention(x, self.input_layernorm, *cache), self.post_layernorm)


class Step(NamedTuple):
    """What every layer of one step shares."""

    context: bool
    slots: Tensor
    tables: Tensor
    owners: Tensor
    positions: Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, gpt_neox halves. x [tokens, heads, size]; cos, sin [tokens, 1, size / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
