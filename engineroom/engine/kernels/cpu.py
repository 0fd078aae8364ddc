"""Our CPU kernels (cpu.cpp and its headers) as custom operators that AOTInductor links into the engine.

They exist for two reasons. First, AOTInductor does not pack weights that are stored outside the compiled code. Its
products with unpacked weights are slow for few rows, and slower still in bfloat16 on a processor without instructions
for it. Second, PyTorch's attention needs contiguous keys and values, so it would copy the blocks of the KV cache.

Outside a compiled engine, PyTorch's own operators implement them; tests compare the two.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from engineroom.engine.torch_private import cpp_compiler, has_bf16_products, vector_isa_flags
from engineroom.kit import probe

PANEL_WIDTH = 16  # output features of a panel, as in cpu_linear.h
SOURCE = Path(__file__).with_name("cpu.cpp")
HEADERS = (SOURCE.with_name("cpu_linear.h"), SOURCE.with_name("cpu_attention.h"))
FLAGS = ("-O3", "-fopenmp", "-fPIC", "-std=c++20")


def packed_is_faster(device: str, dtype: str) -> bool:
    """Whether our product with packed weights beats PyTorch's.

    It does on a CPU in float32. In bfloat16 it does if this processor has no bfloat16 instructions for oneDNN, which
    computes PyTorch's product.
    """
    return device == "cpu" and (dtype == "float32" or (dtype == "bfloat16" and not has_bf16_products()))


def pack(weight: Tensor) -> Tensor:
    """[out_features, in_features] -> panels [num_panels, in_features, 16]; zeros fill the last panel."""
    padded = F.pad(weight, (0, 0, 0, -len(weight) % PANEL_WIDTH))
    return padded.unflatten(0, (-1, PANEL_WIDTH)).transpose(1, 2).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """Panels [num_panels, in_features, 16] -> [num_panels * 16, in_features]."""
    return packed.transpose(1, 2).flatten(0, 1)


@torch.library.custom_op("engineroom_cpu::packed_linear", mutates_args=())
def packed_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T, float32 [num_tokens, num_panels * 16].

    x float32 [num_tokens, in_features]; weight float32 or bfloat16 [num_panels, in_features, 16].
    """
    return F.linear(x, unpack(weight).float())


@packed_linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * PANEL_WIDTH)


@torch.library.custom_op("engineroom_cpu::paged_attention", mutates_args=())
def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    sequence_indices: Tensor,
    positions: Tensor,
) -> Tensor:
    """Causal attention over the paged KV cache: q [num_tokens, num_heads, head_size] -> the same shape.

    k_cache, v_cache [num_blocks, tokens_per_block, num_kv_heads, head_size]; int64: block_tables [num_sequences,
    max_blocks_per_sequence], sequence_indices and positions [num_tokens]. Tokens of one sequence are neighbours.
    """
    sequences, counts = sequence_indices.unique_consecutive(return_counts=True)
    counts = counts.tolist()
    # [sequences, longest, num_heads, head_size]
    padded_q = pad_sequence(list(q.split(counts)), batch_first=True)
    last_positions = pad_sequence(list(positions.split(counts)), batch_first=True)  # [sequences, longest]
    num_blocks = int(positions.max()) // k_cache.shape[1] + 1
    block_ids = block_tables[sequences, :num_blocks]
    k, v = (cache[block_ids].flatten(1, 2).transpose(1, 2) for cache in (k_cache, v_cache))
    mask = torch.arange(k.shape[2]) <= last_positions[:, None, :, None]
    y = F.scaled_dot_product_attention(padded_q.transpose(1, 2), k, v, attn_mask=mask, enable_gqa=True)
    return torch.cat([rows[:count] for rows, count in zip(y.transpose(1, 2), counts, strict=True)])


@paged_attention.register_fake
def _(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    sequence_indices: Tensor,
    positions: Tensor,
) -> Tensor:
    return torch.empty_like(q)


def _shim(name: str, num_tensors: int) -> list[str]:
    arguments = "AtenTensorHandle, " * num_tensors + "AtenTensorHandle*"
    return [f"AOTITorchError aoti_torch_cpu_{name}({arguments})"]


def compile_command(*isa_flags: str) -> list[str]:
    """The command line that compiles SOURCE for the given vector instructions, without its output file."""
    from torch.utils.cpp_extension import include_paths

    return [cpp_compiler(), *FLAGS, *isa_flags, *(f"-I{path}" for path in include_paths()), str(SOURCE)]


def compile_kernels(folder: Path) -> Path:
    """Compile SOURCE for this processor to an object file in `folder`, unless it is there already."""
    command = compile_command("-march=native", *vector_isa_flags())
    sources = [file.read_text() for file in (SOURCE, *HEADERS)]
    key = repr([command, sources, torch.__version__, sorted(probe.cpu()[1])])
    path = folder / f"cpu-{hashlib.sha256(key.encode()).hexdigest()[:16]}.o"
    if not path.is_file():
        temporary = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-c", "-o", temporary], check=True)
        temporary.replace(path)
    return path


@contextmanager
def linked_kernels(folder: Path) -> Iterator[dict[str, Any]]:
    """AOTInductor's options that link our kernels into graphs compiled in this block; `folder` has the object file."""
    kernels = compile_kernels(folder)
    shims = {
        torch.ops.engineroom_cpu.packed_linear.default: _shim("packed_linear", 2),
        torch.ops.engineroom_cpu.paged_attention.default: _shim("paged_attention", 6),
    }
    library_path = os.environ.get("LIBRARY_PATH")
    os.environ["LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(kernels.parent), library_path]))
    try:
        yield {
            "cpp.vec_isa_ok": True,
            "aot_inductor.custom_ops_to_c_shims": shims,
            "aot_inductor.custom_op_libs": [f":{kernels.name}"],  # part of the key of torch's own caches
        }
    finally:
        if library_path is None:
            os.environ.pop("LIBRARY_PATH")
        else:
            os.environ["LIBRARY_PATH"] = library_path
