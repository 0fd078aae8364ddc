"""Attention over pages where they are, after "Flash-Decoding for long-context inference" (Dao et al., 2023)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

LEAST_ROWS = 16  # of tl.dot


@triton.jit
def _store(
    q, k, v, cos, sin, slots, keys, values, y, q_stride, k_stride, v_stride,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """One head of one token: rotate q, rotate k into its slot, copy v into its slot."""
    token, head, columns = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, HALF)
    if head < HEADS:
        source, goal = q + token * q_stride + head * 2 * HALF, y + (token * HEADS + head) * 2 * HALF
    else:
        other = head - HEADS
        number = other % KV
        slot = (tl.load(slots + token) * KV + number) * 2 * HALF
        source = k + token * k_stride + number * 2 * HALF
        goal = keys + slot
        if other >= KV:
            source, goal = v + token * v_stride + number * 2 * HALF, values + slot
    a, b = tl.load(source + columns), tl.load(source + HALF + columns)
    if head < HEADS + KV:
        c = tl.load(cos + token * HALF + columns).to(tl.float32)
        s = tl.load(sin + token * HALF + columns).to(tl.float32)
        left, right = a.to(tl.float32), b.to(tl.float32)
        a, b = (left * c - right * s).to(a.dtype), (right * c + left * s).to(a.dtype)
    tl.store(goal + columns, a)
    tl.store(goal + HALF + columns, b)


@triton_op("engineroom::rotate_and_store", mutates_args={"keys", "values"})
def rotate_and_store(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Rotary embedding of q and k; k and v go to their slots of the pages. Returns q, contiguous.

    q [tokens, heads, size]; k, v [tokens, kv_heads, size]; cos, sin [tokens, 1, size / 2]; slots int64 [tokens].
    """
    tokens, heads, size = q.shape
    kv = k.shape[1]
    y = q.new_empty(tokens, heads, size)
    wrap_triton(_store)[(tokens, heads + 2 * kv)](
        q, k, v, cos, sin, slots, keys, values, y, q.stride(0), k.stride(0), v.stride(0),
        HEADS=heads, KV=kv, HALF=size // 2, num_warps=1,
    )  # fmt: skip
    return y


@triton.jit
def _attend(
    q, keys, values, tables, owners, positions, part, stats, tokens, width, heads, kv_heads,
    SCALE: tl.constexpr, EACH: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
    SIZE: tl.constexpr, PAGE: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """EACH query tokens of one sequence, the query heads of one KV head, one split of the pages: an online softmax."""
    tile, kv, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, columns, offsets = tl.arange(0, ROWS), tl.arange(0, SIZE), tl.arange(0, PAGE)
    token, member = tile * EACH + rows // PADDED, rows % PADDED
    real = (rows // PADDED < EACH) & (member < GROUP) & (token < tokens)
    head = kv * GROUP + member
    last = tl.load(positions + token, mask=real, other=0)
    pages = tl.max(last, 0) // PAGE + 1
    each = (pages + SPLITS - 1) // SPLITS
    sequence = tl.load(owners + tile * EACH)
    place = (token * heads + head)[:, None] * SIZE + columns[None, :]
    mine = tl.load(q + place, mask=real[:, None], other=0)
    most = tl.full((ROWS,), -1e30, tl.float32)
    norm = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, SIZE), tl.float32)
    for page in range(split * each, tl.minimum((split + 1) * each, pages)):
        block = tl.load(tables + sequence * width + page)
        at = ((block * PAGE + offsets[:, None]) * kv_heads + kv) * SIZE + columns[None, :]
        score = tl.dot(mine, tl.trans(tl.load(keys + at)), input_precision="ieee") * SCALE
        score = tl.where((page * PAGE + offsets)[None, :] <= last[:, None], score, -1e30)
        peak = tl.maximum(most, tl.max(score, 1))
        weight = tl.where(score > -1e29, tl.exp(score - peak[:, None]), 0.0)
        shrink = tl.exp(most - peak)
        norm = norm * shrink + tl.sum(weight, 1)
        mixed = mixed * shrink[:, None] + tl.dot(
            weight.to(mine.dtype), tl.load(values + at), input_precision="ieee"
        )
        most = peak
    if SPLITS == 1:
        tl.store(part + place, (mixed / norm[:, None]).to(part.dtype.element_ty), mask=real[:, None])
    else:
        row = (token * heads + head) * SPLITS + split
        tl.store(part + row[:, None] * SIZE + columns[None, :], mixed, mask=real[:, None])
        tl.store(stats + row * 2, most, mask=real)
        tl.store(stats + row * 2 + 1, norm, mask=real)


@triton.jit
def _combine(part, stats, y, SIZE: tl.constexpr, SPLITS: tl.constexpr):
    """The splits of one head, weighed by their maxima."""
    row, splits, columns = tl.program_id(0), tl.arange(0, SPLITS), tl.arange(0, SIZE)
    most = tl.load(stats + (row * SPLITS + splits) * 2)
    norm = tl.load(stats + (row * SPLITS + splits) * 2 + 1)
    weight = tl.exp(most - tl.max(most, 0))
    parts = tl.load(part + (row * SPLITS + splits[:, None]) * SIZE + columns[None, :])
    mixed = tl.sum(parts * weight[:, None], 0) / tl.sum(norm * weight, 0)
    tl.store(y + row * SIZE + columns, mixed.to(y.dtype.element_ty))


@triton_op("engineroom::paged_attention", mutates_args={})
def paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tensor,
    owners: Tensor,
    positions: Tensor,
    each: int,
    splits: int,
) -> Tensor:
    """Causal attention over pages. q [tokens, heads, size], size a power of two; keys, values [blocks, page, kv_heads,
    size]; int64: tables [sequences, width], positions [tokens], owners [tokens]: the row of `tables` that is a token's.
    Tokens come in tiles of `each`, all of one owner. `splits`, a power of two: programs that share a tile's pages.
    """
    tokens, heads, size = q.shape
    _, page, kv_heads, _ = keys.shape
    y = torch.empty_like(q)
    part, stats = y, y
    if splits > 1:
        part = torch.empty(tokens, heads, splits, size, dtype=torch.float32, device=q.device)
        stats = torch.empty(tokens, heads, splits, 2, dtype=torch.float32, device=q.device)
    group = heads // kv_heads
    padded = triton.next_power_of_2(group)
    grid = (triton.cdiv(tokens, each), kv_heads, splits)
    wrap_triton(_attend)[grid](
        q, keys, values, tables, owners, positions, part, stats, tokens, tables.shape[1], heads, kv_heads,
        SCALE=size**-0.5, EACH=each, GROUP=group, PADDED=padded, ROWS=max(LEAST_ROWS, each * padded),
        SIZE=size, PAGE=page, SPLITS=splits, num_warps=4,
    )  # fmt: skip
    if splits > 1:
        wrap_triton(_combine)[(tokens * heads,)](part, stats, y, SIZE=size, SPLITS=splits, num_warps=2)
    return y
