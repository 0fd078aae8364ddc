"""Run by the `kernels` environment: every GPU kernel in Triton's interpreter, on a CPU, against PyTorch's operators.

Prints one line of JSON for each case: its name, and the largest difference relative to the largest right value.
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
from engineroom.engine.layers import rotate, tile

PAGE, SIZE, EPS = 16, 16, 1e-5


def say(case: str, got: Tensor, right: Tensor) -> None:
    worst = (got.float() - right.float()).abs().max() / right.float().abs().max()
    print(json.dumps({"case": case, "error": float(worst)}))


def products() -> None:
    for inputs, outputs in ((96, 64), (130, 7), (9000, 6), (9216, 16)):
        x, w, n = torch.randn(1, inputs), torch.randn(outputs, inputs), torch.rand(inputs) + 0.5
        b, add = torch.randn(outputs), torch.randn(1, outputs)
        normed = F.rms_norm(x, (inputs,), n, EPS)
        say(f"plain {inputs} {outputs}", linear(x, w, None, None, 0.0, None, False), F.linear(x, w))
        say(f"all {inputs} {outputs}", linear(x, w, b, n, EPS, add, False), F.linear(normed, w, b) + add)
        both = torch.randn(2 * outputs, inputs)
        gate, fc = F.linear(normed, both).chunk(2, -1)
        say(f"gated {inputs} {outputs}", linear(x, both, None, n, EPS, None, True), F.silu(fc) * gate)


def angles(tokens: int) -> tuple[Tensor, Tensor]:
    angle = torch.randn(tokens, 1, SIZE // 2)
    return angle.cos(), angle.sin()


def stores(heads: int, kv: int) -> None:
    """Both ways into the pages: all at once for one token, and after a product for several."""
    for tokens in (1, 5):
        x, n, cos_sin = torch.randn(tokens, 48), torch.rand(48) + 0.5, angles(tokens)
        w, b = torch.randn((heads + 2 * kv) * SIZE, 48), torch.randn((heads + 2 * kv) * SIZE)
        slots = torch.randperm(3 * PAGE)[:tokens]
        parts = (
            F.linear(F.rms_norm(x, (48,), n, EPS), w, b).unflatten(-1, (-1, SIZE)).split([heads, kv, kv], 1)
        )
        q, k, v = rotate(parts[0], *cos_sin), rotate(parts[1], *cos_sin), parts[2]
        pools = [torch.zeros(3, PAGE, kv, SIZE) for _ in "kv"]
        if tokens == 1:
            got = qkv(x, w, b, n, EPS, *cos_sin, slots, *pools)
        else:
            got = rotate_and_store(*parts, *cos_sin, slots, *pools)
        say(f"q {tokens} {heads}/{kv}", got, q)
        for name, pool, right in (("k", pools[0], k), ("v", pools[1], v)):
            wanted = torch.zeros_like(pool).view(-1, kv, SIZE).index_copy_(0, slots, right)
            say(f"{name} {tokens} {heads}/{kv}", pool.view(-1, kv, SIZE), wanted)


def attention(heads: int, kv: int, splits: int, context: bool) -> None:
    """Sequences of different lengths, their pages in any order; in a context each brings several tokens, padded."""
    lengths, group = (3, 40, 17), heads // kv
    keys, values = torch.randn(12, PAGE, kv, SIZE), torch.randn(12, PAGE, kv, SIZE)
    tables = (torch.randperm(11) + 1)[:9].view(3, 3)
    each = tile(group) if context else 1
    rows = []  # (owner, position, real)
    for owner, length in enumerate(lengths):
        new = list(range(max(0, length - 20), length)) if context else [length - 1]
        rows += [(owner, at, True) for at in new] + [(owner, 0, False)] * (-len(new) % each)
    owners, positions = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    q = torch.randn(len(rows), heads, SIZE)
    got = paged_attention(q, keys, values, tables, owners, positions, each, splits)
    for number, (owner, at, real) in enumerate(rows):
        if not real:
            continue
        k, v = (
            pool[tables[owner]].flatten(0, 1)[: at + 1].repeat_interleave(group, 1) for pool in (keys, values)
        )
        right = F.scaled_dot_product_attention(q[number, :, None], k.transpose(0, 1), v.transpose(0, 1))[:, 0]
        say(f"attention {heads}/{kv} {splits} {context} {number}", got[number], right)


def main() -> None:
    torch.manual_seed(0)
    products()
    for heads, kv in ((4, 4), (4, 2), (6, 2)):
        stores(heads, kv)
        for splits, context in ((1, True), (4, False), (16, False)):
            attention(heads, kv, splits, context)


if __name__ == "__main__":
    main()
