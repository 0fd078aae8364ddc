"""The C++ kernels of a CPU engine, compiled by AOTInductor, against PyTorch's operators in float64."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from engineroom.engine.compile import OPTIONS
from engineroom.engine.kernels.cpu import (
    compile_command,
    linked_kernels,
    pack,
    packed_is_faster,
    packed_linear,
    paged_attention,
    unpack,
)
from engineroom.engine.torch_private import aot_compile, load_package, package_graphs

IN_FEATURES, OUT_FEATURES = 37, 45  # neither fills the last panel nor the steps of the kernel
SQUARE = 64  # in_features and out_features of a weight that fills both
TOKENS_PER_BLOCK, NUM_BLOCKS, LONGEST = 12, 30, 50
NUM_KV_HEADS = 2
WEIGHT_DTYPES = (torch.bfloat16, torch.float32)
HEADS = (
    (64, 4, torch.float32),
    (24, 6, torch.bfloat16),
    (8, 36, torch.float16),
)  # head_size, num_heads, dtype
RunKernels = Callable[[Tensor, Tensor, list[list[Tensor]]], list[Tensor]]


class Kernels(nn.Module):
    """All kernels in one package, since each compilation takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        shapes = [(OUT_FEATURES, IN_FEATURES), (SQUARE, SQUARE)]
        weights = [
            torch.randn(*shape, generator=generator).to(dtype) for dtype in WEIGHT_DTYPES for shape in shapes
        ]
        self.weights = nn.ParameterList(nn.Parameter(pack(weight), False) for weight in weights)

    def forward(self, x: Tensor, y: Tensor, cases: list[list[Tensor]]) -> list[Tensor]:
        """x [num_tokens, IN_FEATURES], y [num_tokens, SQUARE]; each case has the arguments of `paged_attention`."""
        products = [
            packed_linear(rows, weight) for weight, rows in zip(self.weights, (x, y, x, y), strict=True)
        ]
        return products + [paged_attention(*case) for case in cases]


def attention_case(counts: Sequence[int], head_size: int, num_heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Sequences of LONGEST tokens and a few fewer, each of which computes its last `counts` tokens.

    Their KV blocks are scattered over the cache.
    """
    generator = torch.Generator().manual_seed(9)
    max_blocks = -(-LONGEST // TOKENS_PER_BLOCK)
    sequence_indices = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    positions = torch.cat(
        [torch.arange(LONGEST - index - count, LONGEST - index) for index, count in enumerate(counts)]
    )
    block_tables = torch.stack([torch.randperm(NUM_BLOCKS, generator=generator)[:max_blocks] for _ in counts])
    q = torch.randn(len(positions), num_heads, head_size, generator=generator)
    cache_shape = (2, NUM_BLOCKS, TOKENS_PER_BLOCK, NUM_KV_HEADS, head_size)
    k_cache, v_cache = torch.randn(cache_shape, generator=generator)
    return [q.to(dtype), k_cache.to(dtype), v_cache.to(dtype), block_tables, sequence_indices, positions]


@pytest.mark.parametrize(
    "isa",
    [("x86-64-v3", "-DCPU_CAPABILITY_AVX2"), ("x86-64-v4", "-DCPU_CAPABILITY_AVX512"), ("x86-64",)],
    ids=str,
)
def test_the_kernels_compile_for_every_kind_of_processor(isa: tuple[str, ...]) -> None:
    """PyTorch has a header of vector types for each instruction set; this machine need not support it."""
    march, *macro = isa
    subprocess.run([*compile_command(f"-march={march}", *macro), "-fsyntax-only"], check=True)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernels, RunKernels]]:
    module, path = Kernels(), tmp_path_factory.mktemp("kernels") / "all.pt2"
    rows, tokens = {0: Dim("rows", min=1, max=2048)}, {0: Dim("tokens", min=2, max=256)}
    case_shapes = [tokens, {}, {}, {0: Dim("sequences", min=2, max=64)}, tokens, tokens]
    examples = (
        torch.zeros(3, IN_FEATURES),
        torch.zeros(3, SQUARE),
        [attention_case((2, 3), *heads) for heads in HEADS],
    )
    program = torch.export.export(
        module, examples, dynamic_shapes=(rows, rows, [case_shapes] * len(HEADS)), strict=False
    )
    with linked_kernels(path.parent) as options:
        files = aot_compile(program, OPTIONS | options)
    package_graphs(path, {"all": files})
    graph = load_package(path, "all")
    graph.load_constants(dict(module.named_parameters()), False, True, True)
    yield (
        module,
        lambda x, y, cases: graph.boxed_run([x, y, *(tensor for case in cases for tensor in case)]),
    )


def test_the_compiled_product(kernels: tuple[Kernels, RunKernels]) -> None:
    """All numbers of rows up to two full tiles and a remainder; bfloat16 panels that are widened; blocks of rows."""
    module, run = kernels
    generator = torch.Generator().manual_seed(8)
    cases = [attention_case((2, 3), *heads) for heads in HEADS]
    for count in (*range(1, 30), 64, 97, 1200):
        x = torch.randn(count, IN_FEATURES, generator=generator)
        y = torch.randn(count, SQUARE, generator=generator)
        for actual, rows, weight in zip(run(x, y, cases), (x, y, x, y), module.weights, strict=False):
            expected = rows.double() @ unpack(weight).double().T
            assert (actual - expected).abs().max() < 1e-5 * expected.abs().max(), count


@pytest.mark.parametrize("counts", [(1,) * 16, (33, 1, 17, 2), (LONGEST, 20)])
def test_the_compiled_attention(kernels: tuple[Kernels, RunKernels], counts: Sequence[int]) -> None:
    """Single tokens, chunks, and both; head sizes and KV blocks below a vector's width; groups larger than a chunk."""
    cases = [attention_case(counts, *heads) for heads in HEADS]
    outputs = kernels[1](torch.zeros(1, IN_FEATURES), torch.zeros(1, SQUARE), cases)[-len(HEADS) :]
    for actual, case, tolerance in zip(outputs, cases, (1e-5, 1e-2, 2e-3), strict=True):
        expected = paged_attention(
            *(tensor.double() if tensor.is_floating_point() else tensor for tensor in case)
        )
        assert actual.dtype == case[0].dtype
        assert (actual - expected).abs().max() < tolerance * expected.abs().max()


def test_eager_attention_is_attention() -> None:
    """The reference of the compiled kernel: softmax(q · k) · v over the positions up to a token's own, one by one."""
    case = attention_case((3, 1), 8, 4, torch.float64)
    q, k_cache, v_cache, block_tables, sequence_indices, positions = case
    actual = paged_attention(*case)
    for row, (sequence, position) in enumerate(zip(sequence_indices, positions, strict=True)):
        k, v = (
            cache[block_tables[sequence]].flatten(0, 1)[: position + 1].repeat_interleave(2, 1)
            for cache in (k_cache, v_cache)
        )
        weight = (torch.einsum("hs,ths->ht", q[row], k) * 8**-0.5).softmax(-1)
        assert torch.allclose(actual[row], torch.einsum("ht,ths->hs", weight, v))


def test_panels_hold_the_weight_and_zeros() -> None:
    weight = torch.randn(OUT_FEATURES, IN_FEATURES)
    packed = pack(weight)
    assert packed.shape == (3, IN_FEATURES, 16) and packed.is_contiguous()
    assert unpack(packed)[:OUT_FEATURES].equal(weight) and not unpack(packed)[OUT_FEATURES:].any()
    assert packed[1, 5, 3] == weight[19, 5]


def test_a_gpu_has_its_own_kernels() -> None:
    assert not packed_is_faster("cuda", "bfloat16")
    assert packed_is_faster("cpu", "float32") and not packed_is_faster("cpu", "float16")
