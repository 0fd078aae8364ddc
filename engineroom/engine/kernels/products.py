"""GPU matrix-vector products for one token: each weight is read once, at close to the bandwidth of a copy.

The operations around a product are fused into its kernel: RMS norm, bias, residual, the gate of an MLP, the rotary
embedding. layers.py calls `linear` and `qkv` in the graph for a single token.
A comment beside a Triton variable gives its shape; pointers have the shape of their tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton


def tiling(weight: Tensor, norm: Tensor | None) -> tuple[int, int, int]:
    """(rows of the weight per program, elements of a row read at once, warps): the fastest of those tried on an H200.

    weight [out_features, in_features], norm [in_features] or None.
    """
    out_features, in_features = weight.shape
    rows, chunk, warps = 2, 2048, 4 if norm is None else 8
    if in_features > 8192:
        rows, chunk, warps = 8, 512, 8
    elif out_features > 8192:
        rows, warps = 8, 16
    return rows, min(chunk, triton.next_power_of_2(in_features)), warps


@triton.jit
def _product(
    x_ptr, weight_ptr, norm_ptr, bias_ptr, rows, valid_rows,
    EPS: tl.constexpr, IN_FEATURES: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, EVEN: tl.constexpr,
    HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of the weight times norm(x), plus bias: float32 [ROWS].

    rows, valid_rows [ROWS]. EVEN: all rows are valid, and IN_FEATURES is a multiple of CHUNK, so loads need no mask.
    """
    total = tl.zeros((ROWS, CHUNK), tl.float32)
    squares = tl.zeros((CHUNK,), tl.float32)
    for first in range(0, IN_FEATURES, CHUNK):
        columns = first + tl.arange(0, CHUNK)
        weight_ptrs = weight_ptr + rows[:, None].to(tl.int64) * IN_FEATURES + columns[None, :]
        if EVEN:
            w = tl.load(weight_ptrs, eviction_policy="evict_first").to(tl.float32)  # [ROWS, CHUNK]
            x = tl.load(x_ptr + columns).to(tl.float32)  # [CHUNK]
            scale = tl.load(norm_ptr + columns).to(tl.float32) if HAS_NORM else 1.0
        else:
            valid = columns < IN_FEATURES
            w = tl.load(weight_ptrs, mask=valid_rows[:, None] & valid[None, :], other=0).to(tl.float32)
            x = tl.load(x_ptr + columns, mask=valid, other=0).to(tl.float32)
            scale = tl.load(norm_ptr + columns, mask=valid, other=0).to(tl.float32) if HAS_NORM else 1.0
        squares += x * x
        x *= scale
        total += w * x[None, :]
    y = tl.sum(total, 1)
    if HAS_NORM:
        y *= tl.rsqrt(tl.sum(squares, 0) / IN_FEATURES + EPS)
    if HAS_BIAS:
        y += tl.load(bias_ptr + rows, mask=valid_rows, other=0).to(tl.float32)
    return y


@triton.jit
def _split_halves(x, HALF: tl.constexpr):
    """x [2 * HALF] -> its first and its second half, [HALF] each."""
    return tl.split(tl.trans(tl.reshape(x, (2, HALF))))


@triton.jit
def _linear_kernel(
    x_ptr, weight_ptr, norm_ptr, bias_ptr, residual_ptr, y_ptr, OUT_FEATURES: tl.constexpr, GATED: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, EPS: tl.constexpr, IN_FEATURES: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr,
    EVEN: tl.constexpr, HAS_NORM: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program for ROWS rows of the weight, which give ROWS outputs; or, if GATED, for ROWS / 2 gate rows and the fc
    rows that belong to them, which give ROWS / 2 outputs."""
    outputs: tl.constexpr = ROWS // 2 if GATED else ROWS
    index = tl.arange(0, ROWS)
    output = tl.program_id(0) * outputs + index % outputs  # [ROWS]
    rows = output + index // outputs * OUT_FEATURES  # [ROWS]
    valid = output < OUT_FEATURES  # [ROWS]
    y = _product(
        x_ptr, weight_ptr, norm_ptr, bias_ptr, rows, valid, EPS, IN_FEATURES, CHUNK, ROWS, EVEN, HAS_NORM, HAS_BIAS
    )  # fmt: skip
    if GATED:
        gate, fc = _split_halves(y, outputs)
        columns = tl.program_id(0) * outputs + tl.arange(0, outputs)
        tl.store(
            y_ptr + columns, (gate * fc * tl.sigmoid(fc)).to(y_ptr.dtype.element_ty), mask=columns < OUT_FEATURES
        )  # fmt: skip
    else:
        if HAS_RESIDUAL:
            y += tl.load(residual_ptr + rows, mask=valid, other=0).to(tl.float32)
        tl.store(y_ptr + rows, y.to(y_ptr.dtype.element_ty), mask=valid)


@triton_op("engineroom::linear", mutates_args={})
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Tensor | None,
    eps: float,
    residual: Tensor | None,
    gated: bool,
) -> Tensor:
    """residual + rms_norm(x) @ weight.T + bias, summed in float32: [1, out_features].

    x [1, in_features], weight [out_features, in_features], bias [out_features], norm [in_features], residual
    [1, out_features]. `gated`: weight is [2 * out_features, in_features], gate stacked on fc, and the result is
    silu(fc) * gate, without a residual.
    """
    num_rows, in_features = weight.shape
    out_features = num_rows // 2 if gated else num_rows
    y = x.new_empty(1, out_features)
    rows, chunk, warps = tiling(weight, norm)
    outputs = rows // 2 if gated else rows
    wrap_triton(_linear_kernel)[(triton.cdiv(out_features, outputs),)](
        x, weight, x if norm is None else norm, x if bias is None else bias, x if residual is None else residual, y,
        OUT_FEATURES=out_features, GATED=gated, HAS_RESIDUAL=residual is not None, EPS=eps, IN_FEATURES=in_features,
        CHUNK=chunk, ROWS=rows, EVEN=in_features % chunk == 0 and out_features % outputs == 0,
        HAS_NORM=norm is not None, HAS_BIAS=bias is not None, num_warps=warps,
    )  # fmt: skip
    return y


@triton.jit
def _qkv_kernel(
    x_ptr, weight_ptr, norm_ptr, bias_ptr, cos_ptr, sin_ptr, slot_mapping_ptr, k_cache_ptr, v_cache_ptr, output_ptr,
    NUM_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HALF: tl.constexpr,
    EPS: tl.constexpr, IN_FEATURES: tl.constexpr, CHUNK: tl.constexpr, EVEN: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program for the two elements of one head that the rotary embedding rotates together. HALF: head_size / 2."""
    head = tl.program_id(0) // HALF
    column = tl.program_id(0) % HALF
    rows = head * 2 * HALF + column + tl.arange(0, 2) * HALF  # [2]
    cos = tl.load(cos_ptr + column).to(tl.float32)
    sin = tl.load(sin_ptr + column).to(tl.float32)
    slot = tl.load(slot_mapping_ptr)
    y = _product(
        x_ptr, weight_ptr, norm_ptr, bias_ptr, rows, rows >= 0, EPS, IN_FEATURES, CHUNK, 2, EVEN, True, HAS_BIAS
    )  # fmt: skip
    x1, x2 = _split_halves(y, 1)  # [1] each
    target_ptr = output_ptr + head * 2 * HALF
    if head >= NUM_HEADS:
        offset = (slot * NUM_KV_HEADS + (head - NUM_HEADS) % NUM_KV_HEADS) * 2 * HALF
        target_ptr = k_cache_ptr + offset
        if head >= NUM_HEADS + NUM_KV_HEADS:
            target_ptr = v_cache_ptr + offset
    if head < NUM_HEADS + NUM_KV_HEADS:
        x1, x2 = x1 * cos - x2 * sin, x2 * cos + x1 * sin
    target_ptr += column + tl.arange(0, 1)
    tl.store(target_ptr, x1.to(output_ptr.dtype.element_ty))
    tl.store(target_ptr + HALF, x2.to(output_ptr.dtype.element_ty))


@triton_op("engineroom::qkv", mutates_args={"k_cache", "v_cache"})
def qkv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    slot_mapping: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
) -> Tensor:
    """`linear`, then `attention.rotate_and_store`, for one token. Returns q [1, num_heads, head_size], rotated.

    x [1, in_features]; weight [(num_heads + 2 * num_kv_heads) * head_size, in_features], bias its first dimension;
    norm [in_features]; cos, sin [1, 1, head_size / 2]; slot_mapping int64 [1]; k_cache, v_cache [num_blocks,
    tokens_per_block, num_kv_heads, head_size].
    """
    num_kv_heads, head_size = k_cache.shape[2:]
    num_rows, in_features = weight.shape
    num_heads = num_rows // head_size - 2 * num_kv_heads
    output = x.new_empty(1, num_heads, head_size)
    chunk = min(2048, triton.next_power_of_2(in_features))
    wrap_triton(_qkv_kernel)[(num_rows // 2,)](
        x, weight, norm, x if bias is None else bias, cos, sin, slot_mapping, k_cache, v_cache, output,
        NUM_HEADS=num_heads, NUM_KV_HEADS=num_kv_heads, HALF=head_size // 2, EPS=eps, IN_FEATURES=in_features,
        CHUNK=chunk, EVEN=in_features % chunk == 0, HAS_BIAS=bias is not None, num_warps=8,
    )  # fmt: skip
    return output
