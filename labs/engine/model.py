"""The decoder that is compiled: its parameters have the names of a TensorRT-LLM checkpoint; `fuse` joins the two
halves of the MLP, all else loads as it is.

Graphs of one model: `context` takes the next tokens of sequences, `generation` one token of each; both read and write
the pages of the KV cache in place. Our own kernels do the attention, and on a CPU the matrix products, on a GPU those
of one token (`alone`); that is decided while the graph is exported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labs.checkpoint import Model, frequencies
from labs.kernels import cpu

EMBEDDING = "transformer.vocab_embedding"
UNKNOWN = -1  # a token that the device has chosen and the host has not yet read
Pools = list[Tensor]  # one [num_blocks, tokens_per_block, kv_heads, head_size] a layer


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
            from labs.kernels.products import linear

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
    def __init__(self, model: Model, eps: float) -> None:
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
            from labs.kernels.products import qkv

            weights = (self.qkv.weight, self.qkv.bias, norm.weight, norm.eps)
            return qkv(x, *weights, *rotary, step.slots, keys, values)
        q, k, v = self.qkv(x, norm).unflatten(-1, (-1, self.size)).split([self.heads, self.kv, self.kv], 1)
        if normed:
            q, k = self.q_layernorm(q), self.k_layernorm(k)
        if x.is_cuda:
            from labs.kernels.attention import rotate_and_store

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
        from labs.kernels.attention import paged_attention

        if step.context:
            return paged_attention(q, *pages, tile(self.heads // self.kv), 1)
        return paged_attention(q, *pages, 1, 16 if alone(q) else 4)


class GatedMlp(nn.Module):
    """x + proj(silu(fc) * gate), with gate and fc in one product: TensorRT-LLM's FusedGatedMLP, its `fused_fc`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.fused_fc = Linear(model.hidden_size, 2 * model.intermediate_size, model.mlp_bias, gated=True)
        self.proj = Linear(model.intermediate_size, model.hidden_size, model.mlp_bias)

    def forward(self, x: Tensor, norm: RmsNorm) -> Tensor:
        return self.proj(self.fused_fc(x, norm), add=x)


class Layer(nn.Module):
    def __init__(self, model: Model, eps: float) -> None:
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


class Transformer(nn.Module):
    def __init__(self, model: Model, eps: float) -> None:
        super().__init__()
        self.vocab_embedding = Linear(model.hidden_size, model.vocab_size)
        self.layers = nn.ModuleList(Layer(model, eps) for _ in range(model.num_hidden_layers))
        self.ln_f = RmsNorm(model.hidden_size, eps)


class Decoder(nn.Module):
    """One rank of a checkpoint; `pretrained` is its config.json. `context`: the graph that is exported next is that."""

    def __init__(self, model: Model, pretrained: dict[str, Any]) -> None:
        super().__init__()
        self.context = True
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
        owners: Tensor,
        last: Tensor,
        keys: Pools,
        values: Pools,
    ) -> tuple[Tensor, Tensor]:
        """Logits float32 [rows of `last`, vocabulary], and the likeliest token of each row.

        int64: tokens, positions, slots [all tokens]; tables [sequences, pages]; owners [all tokens], the row of tables;
        last: the tokens whose logits are wanted. A slot is block * tokens_per_block + offset. Attention goes up to a
        token's own position. Tokens of one sequence are neighbours; on a GPU they come in tiles of `tile`.
        """
        x = F.embedding(tokens, self.transformer.vocab_embedding.weight)
        angle = positions[:, None].float() * self.inv_freq
        rotary = (angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype))
        step = Step(self.context, slots, tables, owners, positions)
        for layer, k, v in zip(self.transformer.layers, keys, values, strict=True):
            x = layer(x, rotary, step, k, v)
        logits = self.lm_head(x[last], self.transformer.ln_f).float()
        return logits, likeliest(logits)


class Generation(nn.Module):
    """One token of each sequence; what the device knows of them the graph looks up itself, in a kernel or two."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, rows: Tensor, last: Tensor, tables: Tensor, keys: Pools, values: Pools
    ) -> tuple[Tensor, Tensor]:
        """As the decoder's. int64: rows [3, sequences], the token or UNKNOWN, the seat and the position of each; last
        [seats], the newest token, which is read and then written; tables [seats, pages]."""
        known, seats, at = rows.unbind()
        tokens = torch.where(known == UNKNOWN, last[seats], known)
        pages, numbers = tables[seats], torch.arange(rows.shape[1], device=rows.device)
        size = keys[0].shape[1]
        slots = pages.gather(1, (at // size)[:, None])[:, 0] * size + at % size
        logits, chosen = self.decoder(tokens, at, slots, pages, numbers, numbers, keys, values)
        last.index_put_((seats,), chosen)
        return logits, chosen


def skeleton(model: Model, pretrained: dict[str, Any], packed: bool = False) -> Decoder:
    """The decoder without values, on the meta device, in the checkpoint's dtype; rotary frequencies stay float32."""
    with torch.device("meta"):
        made = Decoder(model, pretrained).eval().requires_grad_(False)
        for name, part in made.named_modules():
            if packed and isinstance(part, Linear) and name != EMBEDDING:
                part.weight = nn.Parameter(cpu.pack(part.weight), requires_grad=False)
    made = made.to(getattr(torch, pretrained["dtype"]))
    made.inv_freq = made.inv_freq.float()
    return made


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


def likeliest(logits: Tensor, part: int = 128) -> Tensor:
    """argmax of each row, int64 [rows]; in two steps, as a GPU would leave one long row to a few of its processors."""
    if logits.shape[1] % part:
        return logits.argmax(-1)
    best, place = logits.unflatten(1, (-1, part)).max(-1)
    where = best.argmax(-1, keepdim=True)
    return (where * part + place.gather(1, where))[:, 0]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, gpt_neox halves. x [tokens, heads, size]; cos, sin [tokens, 1, size / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
