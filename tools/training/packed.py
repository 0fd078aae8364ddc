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

    query [1, heads, tokens, head_dim]; key and value [1, KV heads, tokens, head_dim]; bounds int32 [documents + 1].
    Returns [1, tokens, heads, head_dim]. A GPU runs FlashAttention's variable-length kernel; a CPU, in the tests, runs
    plain attention with a dense mask.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # the rotation is computed in float32
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head_dim]
        output = varlen_attn(q, k, v, bounds, bounds, CONTEXT, CONTEXT, window_size=(-1, 0))
        assert isinstance(output, Tensor)  # a tuple only with return_aux
        return output[None], None
    position = torch.arange(query.shape[2])
    document = torch.searchsorted(bounds, position, right=True)  # [tokens], 1 for the first document
    mask = (document[:, None] == document[None]) & (position[:, None] >= position[None])  # [tokens, tokens]
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2), None


AttentionInterface.register("packed", packed_attention)


def packed_logits(
    model: LlamaForCausalLM,
    ids: Tensor,
    positions: Tensor,
    bounds: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Logits [tokens, vocabulary], with the residual stream in `dtype`.

    `ids` and `positions` int64 [tokens]; `bounds` int32 [documents + 1]. The model's configuration must have
    `_attn_implementation = "packed"`.
    """
    hidden = model.model.embed_tokens(ids[None])
    rotation = model.model.rotary_emb(hidden, positions[None])
    hidden = hidden.to(dtype)
    for layer in model.model.layers:
        hidden = layer(hidden, position_embeddings=rotation, position_ids=positions[None], bounds=bounds)
    return model.lm_head(model.model.norm(hidden))[0]


def packed_loss(
    model: LlamaForCausalLM, ids: Tensor, positions: Tensor, labels: Tensor, weights: Tensor, bounds: Tensor
) -> Tensor:
    """Weighted mean cross-entropy, a scalar in nats, with activations in bfloat16 as in serving.

    `ids`, `positions`, `labels` int64 [tokens]; `weights` float32 [tokens]; `bounds` int32 [documents + 1].
    """
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = packed_logits(model, ids, positions, bounds, torch.bfloat16).float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()
