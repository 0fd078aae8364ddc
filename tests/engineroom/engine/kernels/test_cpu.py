"""The C++ kernels of a CPU engine, compiled by AOTInductor, against PyTorch's operators in float64."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.export.pt2_archive._package import package_pt2

from engineroom.engine.compile import aot_compile
from engineroom.engine.kernels.cpu import (
    compiler,
    linked,
    pack,
    packed_linear,
    packs,
    paged_attention,
    unpack,
)

IN, OUT = 37, 45  # neither fills the last panel nor the steps of the kernel
OTHER = 64
PAGE, BLOCKS, LONGEST = 12, 30, 50
STORED = (torch.bfloat16, torch.float32)
HEADS = ((64, 4, torch.float32), (24, 6, torch.bfloat16), (8, 36, torch.float16))  # size, number, dtype
Run = Callable[[Tensor, Tensor, list[list[Tensor]]], list[Tensor]]


class Kernels(nn.Module):
    """All of them in one package, as compiling takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        sizes = [(OUT, IN), (OTHER, OTHER)]
        weights = [torch.randn(*size, generator=draw).to(dtype) for dtype in STORED for size in sizes]
        self.weights = nn.ParameterList(nn.Parameter(pack(weight), False) for weight in weights)

    def forward(self, x: Tensor, y: Tensor, cases: list[list[Tensor]]) -> list[Tensor]:
        products = [packed_linear(given, w) for w, given in zip(self.weights, (x, y, x, y), strict=True)]
        return products + [paged_attention(*case) for case in cases]


def case(counts: Sequence[int], size: int, heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Sequences that compute their last `counts` tokens, up to LONGEST and a few less; their pages lie anywhere."""
    draw = torch.Generator().manual_seed(9)
    width = -(-LONGEST // PAGE)
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    at = torch.cat([torch.arange(LONGEST - n - count, LONGEST - n) for n, count in enumerate(counts)])
    tables = torch.stack([torch.randperm(BLOCKS, generator=draw)[:width] for _ in counts])
    q = torch.randn(len(at), heads, size, generator=draw)
    keys, values = torch.randn(2, BLOCKS, PAGE, 2, size, generator=draw)
    return [q.to(dtype), keys.to(dtype), values.to(dtype), tables, owners, at]


@pytest.mark.parametrize(
    "isa",
    [("x86-64-v3", "-DCPU_CAPABILITY_AVX2"), ("x86-64-v4", "-DCPU_CAPABILITY_AVX512"), ("x86-64",)],
    ids=str,
)
def test_every_kind_of_processor_can_compile_them(isa: tuple[str, ...]) -> None:
    """PyTorch's vectors come from other headers on each, whichever this machine has."""
    march, *macro = isa
    subprocess.run([*compiler(f"-march={march}", *macro), "-fsyntax-only"], check=True)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernels, Run]]:
    made, path = Kernels(), tmp_path_factory.mktemp("kernels") / "all.pt2"
    rows, tokens = {0: Dim("rows", min=1, max=2048)}, {0: Dim("tokens", min=2, max=256)}
    sizes = [tokens, {}, {}, {0: Dim("sequences", min=2, max=64)}, tokens, tokens]
    given = (torch.zeros(3, IN), torch.zeros(3, OTHER), [case((2, 3), *head) for head in HEADS])
    program = torch.export.export(
        made, given, dynamic_shapes=(rows, rows, [sizes] * len(HEADS)), strict=False
    )
    with linked(path.parent) as options:
        files = aot_compile(program, options)
    package_pt2(str(path), aoti_files={"all": files})
    loaded = torch._C._aoti.AOTIModelPackageLoader(str(path), "all", True, 1, -1)
    loaded.load_constants(dict(made.named_parameters()), False, True, True)
    yield made, lambda x, y, cases: loaded.boxed_run([x, y, *(tensor for case in cases for tensor in case)])


def test_the_compiled_product(kernels: tuple[Kernels, Run]) -> None:
    """Every number of rows up to two full tiles and a rest, panels that are widened, blocks of rows."""
    made, run = kernels
    draw, cases = torch.Generator().manual_seed(8), [case((2, 3), *head) for head in HEADS]
    for count in (*range(1, 30), 64, 97, 1200):
        x, y = (torch.randn(count, size, generator=draw) for size in (IN, OTHER))
        for got, given, weight in zip(run(x, y, cases), (x, y, x, y), made.weights, strict=False):
            want = given.double() @ unpack(weight).double().T
            assert (got - want).abs().max() < 1e-5 * want.abs().max(), count


@pytest.mark.parametrize("counts", [(1,) * 16, (33, 1, 17, 2), (LONGEST, 20)])
def test_the_compiled_attention(kernels: tuple[Kernels, Run], counts: Sequence[int]) -> None:
    """Single tokens, chunks, both; head sizes and pages that fill no vector; more heads in a group than a tile has."""
    cases = [case(counts, *head) for head in HEADS]
    found = kernels[1](torch.zeros(1, IN), torch.zeros(1, OTHER), cases)[-len(HEADS) :]
    for got, given, tolerance in zip(found, cases, (1e-5, 1e-2, 2e-3), strict=True):
        want = paged_attention(
            *(tensor.double() if tensor.is_floating_point() else tensor for tensor in given)
        )
        assert got.dtype == given[0].dtype and (got - want).abs().max() < tolerance * want.abs().max()


def test_eager_attention_is_attention() -> None:
    """What the compiled kernel is held against: softmax(q · k) · v over the tokens up to one's own, one by one."""
    q, keys, values, tables, owners, at = case((3, 1), 8, 4, torch.float64)
    got = paged_attention(q, keys, values, tables, owners, at)
    for row, (owner, last) in enumerate(zip(owners, at, strict=True)):
        k, v = (
            pool[tables[owner]].flatten(0, 1)[: last + 1].repeat_interleave(2, 1) for pool in (keys, values)
        )
        weight = (torch.einsum("hs,ths->ht", q[row], k) * 8**-0.5).softmax(-1)
        assert torch.allclose(got[row], torch.einsum("ht,ths->hs", weight, v))


def test_panels_hold_the_weight_and_zeros() -> None:
    weight = torch.randn(OUT, IN)
    packed = pack(weight)
    assert packed.shape == (3, IN, 16) and packed.is_contiguous()
    assert unpack(packed)[:OUT].equal(weight) and not unpack(packed)[OUT:].any()
    assert packed[1, 5, 3] == weight[19, 5]


def test_a_gpu_has_its_own_kernels() -> None:
    assert not packs("cuda", "bfloat16") and packs("cpu", "float32") and not packs("cpu", "float16")
