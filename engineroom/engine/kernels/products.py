"""Products of one token with a weight: every weight is read once, at close to the bandwidth of a copy.

What stands before and behind is done on the way: RMS norm, bias, residual, the gate of an MLP, rotary embedding.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton


def tiling(weight: Tensor, norm: Tensor | None) -> tuple[int, int, int]:
    """(rows of a weight that a program takes, elements of a row it reads at once, its warps): the fastest of those
    tried on an H200."""
    outputs, inputs = weight.shape
    rows, size, warps = 2, 2048, 4 if norm is None else 8
    if inputs > 8192:
        rows, size, warps = 8, 512, 8
    elif outputs > 8192:
        rows, warps = 8, 16
    return rows, min(size, triton.next_power_of_2(inputs)), warps


@triton.jit
def _product(
    x, weight, norm, bias, rows, inside,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr,
    NORM: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of the weight times norm(x), in float32 [ROWS]. EVEN: all are there, and chunks fill them."""
    total = tl.zeros((ROWS, CHUNK), tl.float32)
    squares = tl.zeros((CHUNK,), tl.float32)
    for first in range(0, INPUTS, CHUNK):
        columns = first + tl.arange(0, CHUNK)
        place = weight + rows[:, None].to(tl.int64) * INPUTS + columns[None, :]
        if EVEN:
            block = tl.load(place, eviction_policy="evict_first").to(tl.float32)
            part = tl.load(x + columns).to(tl.float32)
            scale = tl.load(norm + columns).to(tl.float32) if NORM else 1.0
        else:
            real = columns < INPUTS
            block = tl.load(place, mask=inside[:, None] & real[None, :], other=0).to(tl.float32)
            part = tl.load(x + columns, mask=real, other=0).to(tl.float32)
            scale = tl.load(norm + columns, mask=real, other=0).to(tl.float32) if NORM else 1.0
        squares += part * part
        part *= scale
        total += block * part[None, :]
    sums = tl.sum(total, 1)
    if NORM:
        sums *= tl.rsqrt(tl.sum(squares, 0) / INPUTS + EPS)
    if BIAS:
        sums += tl.load(bias + rows, mask=inside, other=0).to(tl.float32)
    return sums


@triton.jit
def _halves(sums, HALF: tl.constexpr):
    """[2 × HALF] -> the first and the second HALF."""
    return tl.split(tl.trans(tl.reshape(sums, (2, HALF))))


@triton.jit
def _linear(
    x, weight, norm, bias, add, y, OUTPUTS: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr,
    NORM: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """ROWS outputs, or (GATED) half as many, of as many gate rows and fc rows."""
    each: tl.constexpr = ROWS // 2 if GATED else ROWS
    number = tl.arange(0, ROWS)
    output = tl.program_id(0) * each + number % each
    rows, inside = output + number // each * OUTPUTS, output < OUTPUTS
    sums = _product(x, weight, norm, bias, rows, inside, EPS, INPUTS, CHUNK, ROWS, EVEN, NORM, BIAS)
    if GATED:
        gate, fc = _halves(sums, each)
        goal = tl.program_id(0) * each + tl.arange(0, each)
        tl.store(y + goal, (gate * fc * tl.sigmoid(fc)).to(y.dtype.element_ty), mask=goal < OUTPUTS)
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
    many, size, warps = tiling(weight, norm)
    each = many // 2 if gated else many
    wrap_triton(_linear)[(triton.cdiv(outputs, each),)](
        x, weight, x if norm is None else norm, x if bias is None else bias, x if add is None else add, y,
        OUTPUTS=outputs, GATED=gated, ADD=add is not None, EPS=eps, INPUTS=inputs, CHUNK=size,
        ROWS=many, EVEN=inputs % size == 0 and outputs % each == 0, NORM=norm is not None, BIAS=bias is not None,
        num_warps=warps,
    )  # fmt: skip
    return y


@triton.jit
def _qkv(
    x, weight, norm, bias, cos, sin, slots, keys, values, y,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr,
    EPS: tl.constexpr, INPUTS: tl.constexpr, CHUNK: tl.constexpr, EVEN: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """The two elements of one head that the rotary embedding turns together."""
    head, place = tl.program_id(0) // HALF, tl.program_id(0) % HALF
    rows = head * 2 * HALF + place + tl.arange(0, 2) * HALF
    c, s, to = tl.load(cos + place).to(tl.float32), tl.load(sin + place).to(tl.float32), tl.load(slots)
    sums = _product(x, weight, norm, bias, rows, rows >= 0, EPS, INPUTS, CHUNK, 2, EVEN, True, BIAS)
    a, b = _halves(sums, 1)
    goal = y + head * 2 * HALF
    if head >= HEADS:
        slot = (to * KV + (head - HEADS) % KV) * 2 * HALF
        goal = keys + slot
        if head >= HEADS + KV:
            goal = values + slot
    if head < HEADS + KV:
        a, b = a * c - b * s, b * c + a * s
    goal += place + tl.arange(0, 1)
    tl.store(goal, a.to(y.dtype.element_ty))
    tl.store(goal + HALF, b.to(y.dtype.element_ty))


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
    width = min(2048, triton.next_power_of_2(inputs))
    wrap_triton(_qkv)[(weight.shape[0] // 2,)](
        x, weight, norm, x if bias is None else bias, cos, sin, slots, keys, values, y, HEADS=heads, KV=kv,
        HALF=size // 2, EPS=eps, INPUTS=inputs, CHUNK=width, EVEN=inputs % width == 0,
        BIAS=bias is not None, num_warps=8,
    )  # fmt: skip
    return y
