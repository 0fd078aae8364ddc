"""GPU kernels around the paged KV cache: store new keys and values in it, and attend to it in place.

The attention is after "Flash-Decoding for long-context inference" (Dao et al., 2023). layers.py calls both kernels.
A comment beside a Triton variable gives its shape; pointers have the shape of their tensor.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

MIN_ROWS = 16  # the fewest that tl.dot takes


@triton.jit
def _rotate_and_store_kernel(
    q_ptr, k_ptr, v_ptr, cos_ptr, sin_ptr, slot_mapping_ptr, k_cache_ptr, v_cache_ptr, output_ptr,
    q_stride, k_stride, v_stride,
    NUM_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """One program for each token and each head of q, k and v: rotate q, rotate k into its slot, copy v into its slot.

    HALF: head_size / 2.
    """
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    columns = tl.arange(0, HALF)
    if head < NUM_HEADS:
        source_ptr = q_ptr + token * q_stride + head * 2 * HALF
        target_ptr = output_ptr + (token * NUM_HEADS + head) * 2 * HALF
    else:
        kv_head = (head - NUM_HEADS) % NUM_KV_HEADS
        slot = tl.load(slot_mapping_ptr + token)
        offset = (slot * NUM_KV_HEADS + kv_head) * 2 * HALF
        source_ptr = k_ptr + token * k_stride + kv_head * 2 * HALF
        target_ptr = k_cache_ptr + offset
        if head >= NUM_HEADS + NUM_KV_HEADS:
            source_ptr = v_ptr + token * v_stride + kv_head * 2 * HALF
            target_ptr = v_cache_ptr + offset
    x1 = tl.load(source_ptr + columns)  # [HALF]
    x2 = tl.load(source_ptr + HALF + columns)  # [HALF]
    if head < NUM_HEADS + NUM_KV_HEADS:
        cos = tl.load(cos_ptr + token * HALF + columns).to(tl.float32)
        sin = tl.load(sin_ptr + token * HALF + columns).to(tl.float32)
        first = x1.to(tl.float32)
        second = x2.to(tl.float32)
        x1 = (first * cos - second * sin).to(x1.dtype)
        x2 = (second * cos + first * sin).to(x2.dtype)
    tl.store(target_ptr + columns, x1)
    tl.store(target_ptr + HALF + columns, x2)


@triton_op("engineroom::rotate_and_store", mutates_args={"k_cache", "v_cache"})
def rotate_and_store(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    slot_mapping: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
) -> Tensor:
    """Apply the rotary embedding to q and k, and store k and v in their slots. Returns the rotated q, contiguous.

    q [num_tokens, num_heads, head_size]; k, v [num_tokens, num_kv_heads, head_size]; cos, sin [num_tokens, 1,
    head_size / 2]; slot_mapping int64 [num_tokens]; k_cache, v_cache [num_blocks, tokens_per_block, num_kv_heads,
    head_size].
    """
    num_tokens, num_heads, head_size = q.shape
    num_kv_heads = k.shape[1]
    output = q.new_empty(num_tokens, num_heads, head_size)
    wrap_triton(_rotate_and_store_kernel)[(num_tokens, num_heads + 2 * num_kv_heads)](
        q, k, v, cos, sin, slot_mapping, k_cache, v_cache, output, q.stride(0), k.stride(0), v.stride(0),
        NUM_HEADS=num_heads, NUM_KV_HEADS=num_kv_heads, HALF=head_size // 2, num_warps=1,
    )  # fmt: skip
    return output


@triton.jit
def _paged_attention_kernel(
    q_ptr, k_cache_ptr, v_cache_ptr, block_tables_ptr, sequence_indices_ptr, positions_ptr, output_ptr, stats_ptr,
    num_tokens, max_blocks_per_sequence, num_heads, num_kv_heads,
    SCALE: tl.constexpr, TILE: tl.constexpr, GROUP: tl.constexpr, PADDED_GROUP: tl.constexpr, ROWS: tl.constexpr,
    HEAD_SIZE: tl.constexpr, TOKENS_PER_BLOCK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One program for TILE tokens of one sequence, one KV head with its GROUP query heads, and one of SPLITS ranges of
    the sequence's KV blocks. It computes an online softmax.

    ROWS: at least TILE * PADDED_GROUP; a row is one query head of one token.
    """
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, HEAD_SIZE)
    offsets = tl.arange(0, TOKENS_PER_BLOCK)
    token = tile * TILE + rows // PADDED_GROUP  # [ROWS]
    head_of_group = rows % PADDED_GROUP  # [ROWS]
    valid = (rows // PADDED_GROUP < TILE) & (head_of_group < GROUP) & (token < num_tokens)  # [ROWS]
    head = kv_head * GROUP + head_of_group  # [ROWS]
    position = tl.load(positions_ptr + token, mask=valid, other=0)  # [ROWS]
    num_blocks = tl.max(position, 0) // TOKENS_PER_BLOCK + 1
    blocks_per_split = (num_blocks + SPLITS - 1) // SPLITS
    sequence = tl.load(sequence_indices_ptr + tile * TILE)
    q_offsets = (token * num_heads + head)[:, None] * HEAD_SIZE + columns[None, :]  # [ROWS, HEAD_SIZE]
    q = tl.load(q_ptr + q_offsets, mask=valid[:, None], other=0)  # [ROWS, HEAD_SIZE]
    row_max = tl.full((ROWS,), -1e30, tl.float32)
    row_sum = tl.zeros((ROWS,), tl.float32)
    weighted_v = tl.zeros((ROWS, HEAD_SIZE), tl.float32)
    for block in range(split * blocks_per_split, tl.minimum((split + 1) * blocks_per_split, num_blocks)):
        block_id = tl.load(block_tables_ptr + sequence * max_blocks_per_sequence + block)
        kv_rows = (block_id * TOKENS_PER_BLOCK + offsets[:, None]) * num_kv_heads + kv_head
        kv_offsets = kv_rows * HEAD_SIZE + columns[None, :]  # [TOKENS_PER_BLOCK, HEAD_SIZE]
        k = tl.load(k_cache_ptr + kv_offsets)  # [TOKENS_PER_BLOCK, HEAD_SIZE]
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * SCALE  # [ROWS, TOKENS_PER_BLOCK]
        score = tl.where((block * TOKENS_PER_BLOCK + offsets)[None, :] <= position[:, None], score, -1e30)
        new_max = tl.maximum(row_max, tl.max(score, 1))
        weight = tl.where(score > -1e29, tl.exp(score - new_max[:, None]), 0.0)  # [ROWS, TOKENS_PER_BLOCK]
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(weight, 1)
        weighted_v = weighted_v * rescale[:, None] + tl.dot(  # v is [TOKENS_PER_BLOCK, HEAD_SIZE]
            weight.to(q.dtype), tl.load(v_cache_ptr + kv_offsets), input_precision="ieee"
        )
        row_max = new_max
    if SPLITS == 1:
        tl.store(
            output_ptr + q_offsets, (weighted_v / row_sum[:, None]).to(output_ptr.dtype.element_ty), mask=valid[:, None]
        )  # fmt: skip
    else:
        row = (token * num_heads + head) * SPLITS + split  # [ROWS]
        tl.store(output_ptr + row[:, None] * HEAD_SIZE + columns[None, :], weighted_v, mask=valid[:, None])
        tl.store(stats_ptr + row * 2, row_max, mask=valid)
        tl.store(stats_ptr + row * 2 + 1, row_sum, mask=valid)


@triton.jit
def _combine_splits_kernel(partial_ptr, stats_ptr, output_ptr, HEAD_SIZE: tl.constexpr, SPLITS: tl.constexpr):
    """One program for each head of each token: the sum of its splits, each weighted by its softmax maximum and sum."""
    row = tl.program_id(0)
    splits = tl.arange(0, SPLITS)
    columns = tl.arange(0, HEAD_SIZE)
    split_max = tl.load(stats_ptr + (row * SPLITS + splits) * 2)  # [SPLITS]
    split_sum = tl.load(stats_ptr + (row * SPLITS + splits) * 2 + 1)  # [SPLITS]
    weight = tl.exp(split_max - tl.max(split_max, 0))  # [SPLITS]
    partial = tl.load(partial_ptr + (row * SPLITS + splits[:, None]) * HEAD_SIZE + columns[None, :])
    output = tl.sum(partial * weight[:, None], 0) / tl.sum(split_sum * weight, 0)  # [HEAD_SIZE]
    tl.store(output_ptr + row * HEAD_SIZE + columns, output.to(output_ptr.dtype.element_ty))


@triton_op("engineroom::paged_attention", mutates_args={})
def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    sequence_indices: Tensor,
    positions: Tensor,
    tile: int,
    splits: int,
) -> Tensor:
    """Causal attention over the paged KV cache: q [num_tokens, num_heads, head_size] -> the same shape.

    k_cache, v_cache [num_blocks, tokens_per_block, num_kv_heads, head_size]; int64: block_tables [num_sequences,
    max_blocks_per_sequence], sequence_indices and positions [num_tokens]. head_size and tokens_per_block are powers of
    two. Tokens come in tiles of `tile`, each of one sequence. `splits`, a power of two: the programs that share the KV
    blocks of a tile.
    """
    num_tokens, num_heads, head_size = q.shape
    _, tokens_per_block, num_kv_heads, _ = k_cache.shape
    output = torch.empty_like(q)
    partial, stats = output, output
    if splits > 1:
        partial = torch.empty(num_tokens, num_heads, splits, head_size, dtype=torch.float32, device=q.device)
        stats = torch.empty(num_tokens, num_heads, splits, 2, dtype=torch.float32, device=q.device)
    group = num_heads // num_kv_heads
    padded_group = triton.next_power_of_2(group)
    grid = (triton.cdiv(num_tokens, tile), num_kv_heads, splits)
    wrap_triton(_paged_attention_kernel)[grid](
        q, k_cache, v_cache, block_tables, sequence_indices, positions, partial, stats,
        num_tokens, block_tables.shape[1], num_heads, num_kv_heads,
        SCALE=head_size**-0.5, TILE=tile, GROUP=group, PADDED_GROUP=padded_group,
        ROWS=max(MIN_ROWS, tile * padded_group), HEAD_SIZE=head_size, TOKENS_PER_BLOCK=tokens_per_block,
        SPLITS=splits, num_warps=4,
    )  # fmt: skip
    if splits > 1:
        wrap_triton(_combine_splits_kernel)[(num_tokens * num_heads,)](
            partial, stats, output, HEAD_SIZE=head_size, SPLITS=splits, num_warps=2
        )
    return output
