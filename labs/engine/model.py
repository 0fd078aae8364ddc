"""The decoder that is compiled: its parameters have the names of a TensorRT-LLM checkpoint; `fuse` joins the two
halves of the MLP, all else loads as it is.

Two graphs of one model: `context` takes one sequence's next tokens, `generation` one token of each sequence. Both read
and write the pages of the KV cache in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labs.checkpoint import Model, frequencies

Pools = list[Tensor]  # one [num_blocks, tokens_per_block, kv_heads, head_size] a layer


class Linear(nn.Module):
    """weight [out, in], bias [out] or none; no initialisation, as the values come from a checkpoint."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class RmsNorm(nn.Module):
    """Computed in float32, as transformers does; weight [size]."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, model: Model, eps: float) -> None:
        super().__init__()
        self.heads, self.kv, self.size = model.num_attention_heads, model.num_key_value_heads, model.head_size
        self.qkv = Linear(model.hidden_size, (self.heads + 2 * self.kv) * self.size, model.attn_bias)
        self.dense = Linear(self.heads * self.size, model.hidden_size, model.dense_bias)
        if model.qk_layernorm:
            self.q_layernorm, self.k_layernorm = RmsNorm(self.size, eps), RmsNorm(self.size, eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], step: Step, keys: Tensor, values: Tensor
    ) -> Tensor:
        """x [tokens, hidden]; the new keys and values go to their slots, then every page of the tables is read."""
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.size)).split([self.heads, self.kv, self.kv], 1)
        if hasattr(self, "q_layernorm"):
            q, k = self.q_layernorm(q), self.k_layernorm(k)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        place = (step.slots // keys.shape[1], step.slots % keys.shape[1])
        keys.index_put_(place, k)
        values.index_put_(place, v)
        return self.dense(self.attend(q, step, keys, values).flatten(1))

    def attend(self, q: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        """q [tokens, heads, size] -> the same shape. The query heads that share a KV head are stacked as rows."""
        sequences, group = step.tables.shape[0], self.heads // self.kv
        k = keys[step.tables].flatten(1, 2).transpose(1, 2)  # [sequences, kv, length, size]
        v = values[step.tables].flatten(1, 2).transpose(1, 2)
        q = q.view(sequences, -1, self.kv, group, self.size).permute(0, 2, 3, 1, 4)
        mask = step.mask[:, None, None].expand(-1, 1, group, -1, -1).flatten(2, 3)
        mixed = F.scaled_dot_product_attention(q.flatten(2, 3), k, v, attn_mask=mask)
        return mixed.unflatten(2, (group, -1)).permute(0, 3, 1, 2, 4).reshape(-1, self.heads, self.size)


class GatedMlp(nn.Module):
    """proj(silu(fc(x)) * gate(x)), with gate and fc in one product: TensorRT-LLM's FusedGatedMLP, its `fused_fc`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.fused_fc = Linear(model.hidden_size, 2 * model.intermediate_size, model.mlp_bias)
        self.proj = Linear(model.intermediate_size, model.hidden_size, model.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, fc = self.fused_fc(x).chunk(2, -1)
        return self.proj(F.silu(fc) * gate)


class Layer(nn.Module):
    def __init__(self, model: Model, eps: float) -> None:
        super().__init__()
        self.input_layernorm, self.post_layernorm = (
            RmsNorm(model.hidden_size, eps),
            RmsNorm(model.hidden_size, eps),
        )
        self.attention, self.mlp = Attention(model, eps), GatedMlp(model)

    def forward(self, x: Tensor, *cache: Any) -> Tensor:
        x = x + self.attention(self.input_layernorm(x), *cache)
        return x + self.mlp(self.post_layernorm(x))


class Step:
    """What every layer of one step shares. mask: bool [sequences, tokens each, length]."""

    def __init__(self, slots: Tensor, tables: Tensor, mask: Tensor) -> None:
        self.slots, self.tables, self.mask = slots, tables, mask


class Transformer(nn.Module):
    def __init__(self, model: Model, eps: float) -> None:
        super().__init__()
        self.vocab_embedding = Linear(model.hidden_size, model.vocab_size)
        self.layers = nn.ModuleList(Layer(model, eps) for _ in range(model.num_hidden_layers))
        self.ln_f = RmsNorm(model.hidden_size, eps)


class Decoder(nn.Module):
    """One rank of a checkpoint; `pretrained` is its config.json."""

    def __init__(self, model: Model, pretrained: dict[str, Any]) -> None:
        super().__init__()
        self.model, eps = model, float(pretrained["norm_epsilon"])
        self.transformer = Transformer(model, eps)
        self.lm_head = Linear(model.hidden_size, model.vocab_size)
        base, scaling = pretrained["rotary_base"], pretrained.get("rotary_scaling")
        self.register_buffer("inv_freq", frequencies(model.head_size, base, scaling), persistent=False)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        slots: Tensor,
        tables: Tensor,
        last: Tensor,
        keys: Pools,
        values: Pools,
    ) -> Tensor:
        """Logits float32 [rows of `last`, vocabulary].

        int64: tokens, positions, slots [sequences × tokens each]; tables [sequences, pages]; last: the rows whose
        logits are wanted. A slot is block * tokens_per_block + offset. Attention goes up to a token's own position.
        """
        x = F.embedding(tokens, self.transformer.vocab_embedding.weight)
        angle = positions[:, None].float() * self.inv_freq
        rotary = (angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype))
        length = tables.shape[1] * keys[0].shape[1]
        reach = positions.view(tables.shape[0], -1, 1)
        step = Step(slots, tables, torch.arange(length, device=x.device) <= reach)
        for layer, k, v in zip(self.transformer.layers, keys, values, strict=True):
            x = layer(x, rotary, step, k, v)
        return self.lm_head(self.transformer.ln_f(x[last])).float()


def fuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a rank file as this model has them: mlp.gate on top of mlp.fc, all else as it is."""
    fused = {
        name: tensor
        for name, tensor in tensors.items()
        if ".mlp.gate." not in name and ".mlp.fc." not in name
    }
    for name in [name for name in tensors if ".mlp.gate." in name]:
        both = [tensors[name], tensors[name.replace(".gate.", ".fc.")]]
        fused[name.replace(".gate.", ".fused_fc.")] = torch.cat(both)
    return fused


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, gpt_neox halves. x [tokens, heads, size]; cos, sin [tokens, 1, size / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
