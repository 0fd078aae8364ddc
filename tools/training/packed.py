"""Forward pass and loss of a Llama over documents packed into one row, without attention across them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, LlamaForCausalLM

from tools.training.config import CONTEXT


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    bounds: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each document.

    query [1, heads, tokens, head_dim]; key and value [1, KV heads, tokens, head_dim]; bounds int32
    [documents + 1]. Returns [1, tokens, heads, head_dim]. On a GPU it is FlashAttention's
    variable-length kernel, on a CPU (tests) plain attention with a dense mask.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # the rotation is computed in float32
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        rows = [x[0].transpose(0, 1) for x in (query, key, value)]
        out = varlen_attn(*rows, bounds, bounds, CONTEXT, CONTEXT, window_size=(-1, 0))
        return out[None], None
    place = torch.arange(query.shape[2])
    owner = torch.searchsorted(bounds, place, right=True)
    mask = (owner[:, None] == owner[None]) & (place[:, None] >= place[None])
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2), None


AttentionInterface.register("packed", packed_attention)


def packed_logits(
    model: LlamaForCausalLM,
    ids: Tensor,
    positions: Tensor,
    bounds: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Logits [tokens, vocabulary] for `ids` and `positions` int64 [tokens]; `dtype` is that of the
    residual stream. The model's configuration must have `_attn_implementation = "packed"`."""
    hidden = model.model.embed_tokens(ids[None])
    rotation = model.model.rotary_emb(hidden, positions[None])
    hidden = hidden.to(dtype)
    for layer in model.model.layers:
        hidden = layer(hidden, position_embeddings=rotation, position_ids=positions[None], bounds=bounds)
    return model.lm_head(model.model.norm(hidden))[0]


def packed_loss(
    model: LlamaForCausalLM, ids: Tensor, positions: Tensor, labels: Tensor, weights: Tensor, bounds: Tensor
) -> Tensor:
    """Weighted mean cross-entropy, a scalar in nats, with activations in bfloat16 as when it is served."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = packed_logits(model, ids, positions, bounds, torch.bfloat16).float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()
