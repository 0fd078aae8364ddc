"""Compare every GPU kernel, in Triton's interpreter on a CPU, with PyTorch's operators.

The `kernels` environment runs this file.

It prints one line of JSON for each case: its name, and the largest difference relative to the largest expected value.
"""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

import torch
import torch.nn.functional as F
from torch import Tensor

from engineroom.engine.kernels.attention import paged_attention, rotate_and_store
from engineroom.engine.kernels.products import linear, qkv
from engineroom.engine.layers import apply_rotary_emb, tokens_per_tile

TOKENS_PER_BLOCK, HEAD_SIZE, EPS = 16, 16, 1e-5


def report(case: str, actual: Tensor, expected: Tensor) -> None:
    error = (actual.float() - expected.float()).abs().max() / expected.float().abs().max()
    print(json.dumps({"case": case, "error": float(error)}))


def products() -> None:
    for in_features, out_features in ((96, 64), (130, 7), (9000, 6), (9216, 16)):
        sizes = f"{in_features} {out_features}"
        x, norm = torch.randn(1, in_features), torch.rand(in_features) + 0.5
        weight, bias = torch.randn(out_features, in_features), torch.randn(out_features)
        residual = torch.randn(1, out_features)
        normed = F.rms_norm(x, (in_features,), norm, EPS)
        report(f"plain {sizes}", linear(x, weight, None, None, 0.0, None, False), F.linear(x, weight))
        expected = F.linear(normed, weight, bias) + residual
        report(f"all {sizes}", linear(x, weight, bias, norm, EPS, residual, False), expected)
        gate_and_fc = torch.randn(2 * out_features, in_features)
        gate, fc = F.linear(normed, gate_and_fc).chunk(2, -1)
        report(f"gated {sizes}", linear(x, gate_and_fc, None, norm, EPS, None, True), F.silu(fc) * gate)


def cos_sin(num_tokens: int) -> tuple[Tensor, Tensor]:
    angles = torch.randn(num_tokens, 1, HEAD_SIZE // 2)
    return angles.cos(), angles.sin()


def stores(num_heads: int, num_kv_heads: int) -> None:
    """Both kernels that write to the KV cache: `qkv` for one token, `rotate_and_store` for several."""
    for num_tokens in (1, 5):
        x, norm, rotary = torch.randn(num_tokens, 48), torch.rand(48) + 0.5, cos_sin(num_tokens)
        out_features = (num_heads + 2 * num_kv_heads) * HEAD_SIZE
        weight, bias = torch.randn(out_features, 48), torch.randn(out_features)
        slot_mapping = torch.randperm(3 * TOKENS_PER_BLOCK)[:num_tokens]
        heads = F.linear(F.rms_norm(x, (48,), norm, EPS), weight, bias).unflatten(-1, (-1, HEAD_SIZE))
        q, k, v = heads.split([num_heads, num_kv_heads, num_kv_heads], 1)
        k_cache = torch.zeros(3, TOKENS_PER_BLOCK, num_kv_heads, HEAD_SIZE)
        v_cache = torch.zeros_like(k_cache)
        if num_tokens == 1:
            actual = qkv(x, weight, bias, norm, EPS, *rotary, slot_mapping, k_cache, v_cache)
        else:
            actual = rotate_and_store(q, k, v, *rotary, slot_mapping, k_cache, v_cache)
        case = f"{num_tokens} {num_heads}/{num_kv_heads}"
        report(f"q {case}", actual, apply_rotary_emb(q, *rotary))
        for name, cache, rows in (("k", k_cache, apply_rotary_emb(k, *rotary)), ("v", v_cache, v)):
            slots = cache.view(-1, num_kv_heads, HEAD_SIZE)
            report(f"{name} {case}", slots, torch.zeros_like(slots).index_copy_(0, slot_mapping, rows))


def attention(num_heads: int, num_kv_heads: int, splits: int, is_context: bool) -> None:
    """Sequences of different lengths, their KV blocks in any order; in a context step each has several tokens, padded
    to whole tiles."""
    lengths, group = (3, 40, 17), num_heads // num_kv_heads
    k_cache = torch.randn(12, TOKENS_PER_BLOCK, num_kv_heads, HEAD_SIZE)
    v_cache = torch.randn(12, TOKENS_PER_BLOCK, num_kv_heads, HEAD_SIZE)
    block_tables = (torch.randperm(11) + 1)[:9].view(3, 3)
    tile = tokens_per_tile(group) if is_context else 1
    tokens: list[tuple[int, int, bool]] = []  # (sequence index, position, whether it is padding)
    for sequence, length in enumerate(lengths):
        first_position = max(0, length - 20) if is_context else length - 1
        tokens += [(sequence, position, False) for position in range(first_position, length)]
        tokens += [(sequence, 0, True)] * (-(length - first_position) % tile)
    sequence_indices = torch.tensor([sequence for sequence, _, _ in tokens])
    positions = torch.tensor([position for _, position, _ in tokens])
    q = torch.randn(len(tokens), num_heads, HEAD_SIZE)
    actual = paged_attention(q, k_cache, v_cache, block_tables, sequence_indices, positions, tile, splits)
    for row, (sequence, position, is_padding) in enumerate(tokens):
        if is_padding:
            continue
        k, v = (
            cache[block_tables[sequence]].flatten(0, 1)[: position + 1].repeat_interleave(group, 1)
            for cache in (k_cache, v_cache)
        )
        expected = F.scaled_dot_product_attention(q[row, :, None], k.transpose(0, 1), v.transpose(0, 1))
        report(
            f"attention {num_heads}/{num_kv_heads} {splits} {is_context} {row}", actual[row], expected[:, 0]
        )


def main() -> None:
    torch.manual_seed(0)
    products()
    for num_heads, num_kv_heads in ((4, 4), (4, 2), (6, 2)):
        stores(num_heads, num_kv_heads)
        for splits, is_context in ((1, True), (4, False), (16, False)):
            attention(num_heads, num_kv_heads, splits, is_context)


if __name__ == "__main__":
    main()
