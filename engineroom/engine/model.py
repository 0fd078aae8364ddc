"""The decoder that is compiled: its parameters have the names of a TensorRT-LLM checkpoint; `fuse` joins the two
halves of the MLP, all else loads as it is.

Graphs of one model: `context` takes the next tokens of sequences, `generation` one token of each; both read and write
the pages of the KV cache in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engineroom.checkpoint import ModelConfig, frequencies
from engineroom.engine.kernels import cpu
from engineroom.engine.layers import Layer, Linear, RmsNorm, Step

EMBEDDING = "transformer.vocab_embedding"
UNKNOWN = -1  # a token that the device has chosen and the host has not yet read
Pools = list[Tensor]  # one [num_blocks, tokens_per_block, kv_heads, head_size] a layer


class Transformer(nn.Module):
    def __init__(self, model: ModelConfig, eps: float) -> None:
        super().__init__()
        self.vocab_embedding = Linear(model.hidden_size, model.vocab_size)
        self.layers = nn.ModuleList(Layer(model, eps) for _ in range(model.num_hidden_layers))
        self.ln_f = RmsNorm(model.hidden_size, eps)


class Decoder(nn.Module):
    """One rank of a checkpoint; `pretrained` is its config.json. `context`: the graph that is exported next is that."""

    def __init__(self, model: ModelConfig, pretrained: dict[str, Any]) -> None:
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


def skeleton(model: ModelConfig, pretrained: dict[str, Any], packed: bool = False) -> Decoder:
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
