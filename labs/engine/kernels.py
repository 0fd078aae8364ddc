"""Triton kernels for a GPU, as custom operators that torch.export keeps and AOTInductor compiles into the engine.

Imported only where there is a GPU. Attention reads the pages where they are, after "Flash-Decoding for long-context
inference" (Dao et al., 2023). The matrix-vector products read each weight once, at close to the bandwidth of a copy,
and do what stands before and behind them on the way: RMS norm, bias, residual, the gate of an MLP, rotary embedding.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

LEAST_ROWS = 16  # of tl.dot


def chunk(inputs: int, norm: Tensor | None) -> tuple[int, int]:
    """(elements of a row that a program reads at once, its warps): the fastest of those tried on an H200."""
    size, warps = (512, 4) if inputs > 8192 else (2048, 4 if norm is None else 8)
    return min(size, triton.next_power_of_2(inputs)), warps


@triton.jit
def _product(
    x, weight, norm, bias, rows, inside,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Two rows of the weight times norm(x), in float32 [2]."""
    total = tl.zeros((2, CHUNK), tl.float32)
    squares = tl.zeros((CHUNK,), tl.float32)
    for first in range(0, INPUTS, CHUNK):
        columns = first + tl.arange(0, CHUNK)
        real = columns < INPUTS
        place = weight + rows[:, None].to(tl.int64) * INPUTS + columns[None, :]
        both = inside[:, None] & real[None, :]
        block = tl.load(place, mask=both, other=0, eviction_policy="evict_first").to(tl.float32)
        part = tl.load(x + columns, mask=real, other=0).to(tl.float32)
        if NORM:
            squares += part * part
            part *= tl.load(norm + columns, mask=real, other=0).to(tl.float32)
        total += block * part[None, :]
    sums = tl.sum(total, 1)
    if NORM:
        sums *= tl.rsqrt(tl.sum(squares, 0) / INPUTS + EPS)
    if BIAS:
        sums += tl.load(bias + rows, mask=inside, other=0).to(tl.float32)
    return sums


@triton.jit
def _first(pair):
    return tl.sum(tl.where(tl.arange(0, 2) == 0, pair, 0.0), 0)


@triton.jit
def _second(pair):
    return tl.sum(tl.where(tl.arange(0, 2) == 1, pair, 0.0), 0)


@triton.jit
def _linear(
    x, weight, norm, bias, add, y, OUTPUTS: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Two outputs, or (GATED) one of a gate row and an fc row."""
    program, two = tl.program_id(0), tl.arange(0, 2)
    rows = program + two * OUTPUTS if GATED else program * 2 + two
    inside = rows < (2 * OUTPUTS if GATED else OUTPUTS)
    sums = _product(x, weight, norm, bias, rows, inside, EPS, INPUTS, CHUNK, NORM, BIAS)
    if GATED:
        fc = _second(sums)
        tl.store(y + program, (_first(sums) * fc * tl.sigmoid(fc)).to(y.dtype.element_ty))
    else:
        if ADD:
            sums += tl.load(add + rows, mask=inside, other=0).to(tl.float32)
        tl.store(y + rows, sums.to(y.dtype.element_ty), mask=inside)


@triton_op("engineroom::linear", mutates_args={})
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    eps: float,
    add: Tensor | None,
    gated: bool,
) -> Tensor:
    """add + weight · rms_norm(x) + bias, summed in float32. x [1, in], weight [out, in], bias [out], norm [in].

    `gated`: weight is [2 × out, in], gate above fc, and the result is silu(fc) * gate.
    """
    rows, inputs = weight.shape
    outputs = rows // 2 if gated else rows
    y = x.new_empty(1, outputs)
    grid = (outputs if gated else triton.cdiv(outputs, 2),)
    size, warps = chunk(inputs, norm)
    wrap_triton(_linear)[grid](
        x, weight, x if norm is None else norm, x if bias is None else bias, x if add is None else add, y,
        OUTPUTS=outputs, GATED=gated, ADD=add is not None, EPS=eps, INPUTS=inputs, CHUNK=size,
        NORM=norm is not None, BIAS=bias is not None, num_warps=warps,
    )  # fmt: skip
    return y


@triton.jit
def _qkv(
    x, weight, norm, bias, cos, sin, slots, keys, values, y,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """The two elements of one head that the rotary embedding turns together."""
    head, place = tl.program_id(0) // HALF, tl.program_id(0) % HALF
    rows = head * 2 * HALF + place + tl.arange(0, 2) * HALF
    c, s, to = tl.load(cos + place).to(tl.float32), tl.load(sin + place).to(tl.float32), tl.load(slots)
    sums = _product(x, weight, norm, bias, rows, rows >= 0, EPS, INPUTS, CHUNK, NORM, BIAS)
    a, b = _first(sums), _second(sums)
    goal = y + head * 2 * HALF
    if head >= HEADS:
        slot = (to * KV + (head - HEADS) % KV) * 2 * HALF
        goal = keys + slot
        if head >= HEADS + KV:
            goal = values + slot
    if head < HEADS + KV:
        a, b = a * c - b * s, b * c + a * s
    tl.store(goal + place, a.to(y.dtype.element_ty))
    tl.store(goal + HALF + place, b.to(y.dtype.element_ty))


@triton_op("engineroom::qkv", mutates_args={"keys", "values"})
def qkv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """`linear` for the attention of one token, and `rotate_and_store` of what comes out: q [1, heads, size]."""
    kv, size = keys.shape[2:]
    heads, inputs = weight.shape[0] // size - 2 * kv, weight.shape[1]
    y = x.new_empty(1, heads, size)
    width, warps = chunk(inputs, norm)
    wrap_triton(_qkv)[(weight.shape[0] // 2,)](
        x, weight, norm, x if bias is None else bias, cos, sin, slots, keys, values, y, HEADS=heads, KV=kv,
        HALF=size // 2, EPS=eps, INPUTS=inputs, CHUNK=width, NORM=True, BIAS=bias is not None, num_warps=warps,
    )  # fmt: skip
    return y


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
