"""Kernels of ours for a CPU (cpu.cpp), as custom operators that AOTInductor links into the engine.

Why: AOTInductor keeps the weights that lie outside of the engine as they are, and its products of unpacked weights are
slow for few rows, and slower in bfloat16 on a processor without instructions for it; PyTorch's attention wants the
pages of the cache in one piece, and copies them for it. Eager, the operators are made of PyTorch's own.
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

from engineroom.kit import probe

WIDTH = 16
SOURCE = Path(__file__).with_name("cpu.cpp")
FLAGS = ("-O3", "-fopenmp", "-fPIC", "-std=c++20")


def packs(device: str, dtype: str) -> bool:
    """Is our product the better one? Not on a GPU, nor where oneDNN, behind PyTorch's own, computes in bfloat16."""
    slow = dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device == "cpu" and (dtype == "float32" or slow)


def pack(weight: Tensor) -> Tensor:
    """[out, in] -> [panels, in, 16], zeros behind the last output."""
    padded = F.pad(weight, (0, 0, 0, -len(weight) % WIDTH))
    return padded.unflatten(0, (-1, WIDTH)).transpose(1, 2).contiguous()


def unpack(packed: Tensor) -> Tensor:
    """[panels, in, 16] -> [panels * 16, in]."""
    return packed.transpose(1, 2).flatten(0, 1)


@torch.library.custom_op("engineroom_cpu::packed_linear", mutates_args=())
def packed_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x float32 [rows, in], weight [panels, in, 16] -> float32 [rows, panels * 16]."""
    return F.linear(x, unpack(weight).float())


@packed_linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * WIDTH)


@torch.library.custom_op("engineroom_cpu::paged_attention", mutates_args=())
def paged_attention(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, owners: Tensor, positions: Tensor
) -> Tensor:
    """Causal attention over pages. q [tokens, heads, size], keys and values [blocks, page, kv_heads, size]; int64:
    tables [sequences, width], positions [tokens], owners [tokens]: the row of `tables` that is a token's, in order."""
    sequences, counts = owners.unique_consecutive(return_counts=True)
    parts = counts.tolist()
    rows, until = (pad_sequence(x.split(parts), batch_first=True) for x in (q, positions))
    tables = tables[sequences, : int(positions.max()) // keys.shape[1] + 1]
    k, v = (pool[tables].flatten(1, 2).transpose(1, 2) for pool in (keys, values))
    mask = torch.arange(k.shape[2]) <= until[:, None, :, None]
    y = F.scaled_dot_product_attention(rows.transpose(1, 2), k, v, attn_mask=mask, enable_gqa=True)
    return torch.cat([one[:count] for one, count in zip(y.transpose(1, 2), parts, strict=True)])


@paged_attention.register_fake
def _(q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, owners: Tensor, positions: Tensor) -> Tensor:
    return torch.empty_like(q)


def _shim(name: str, inputs: int) -> list[str]:
    return [f"AOTITorchError aoti_torch_cpu_{name}({'AtenTensorHandle, ' * inputs}AtenTensorHandle*)"]


def compiler(*isa: str) -> list[str]:
    """The C++ compiler's line for SOURCE, without its output; `isa`: flags of the vector instructions it may use."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils.cpp_extension import include_paths

    return [get_cpp_compiler(), *FLAGS, *isa, *(f"-I{path}" for path in include_paths()), str(SOURCE)]


def compiled(folder: Path) -> Path:
    """SOURCE as an object file for this processor, in `folder`, where the next build finds it."""
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    # torch would first compile a file for each instruction set; a compiler that lacks one says so below
    with config.patch({"cpp.vec_isa_ok": True}):
        isa = pick_vec_isa()
    line = compiler(
        "-march=native", *isa.build_arch_flags().split(), *(f"-D{name}" for name in isa.build_macro())
    )
    facts = [line, SOURCE.read_text(), torch.__version__, sorted(probe.cpu()[1])]
    goal = folder / f"cpu-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.o"
    if not goal.is_file():
        temporary = goal.with_suffix(f".{os.getpid()}")
        subprocess.run([*line, "-c", "-o", temporary], check=True)
        temporary.replace(goal)
    return goal


@contextmanager
def linked(folder: Path) -> Iterator[dict[str, Any]]:
    """Options of AOTInductor with which the kernels, `compiled`, become a part of what is compiled."""
    before, kernels = os.environ.get("LIBRARY_PATH"), compiled(folder)
    shims = {
        torch.ops.engineroom_cpu.packed_linear.default: _shim("packed_linear", 2),
        torch.ops.engineroom_cpu.paged_attention.default: _shim("paged_attention", 6),
    }
    os.environ["LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(kernels.parent), before]))
    try:
        yield {
            "cpp.vec_isa_ok": True,
            "aot_inductor.custom_ops_to_c_shims": shims,
            "aot_inductor.custom_op_libs": [f":{kernels.name}"],  # part of the key of torch's own caches
        }
    finally:
        os.environ.pop("LIBRARY_PATH") if before is None else os.environ.update(LIBRARY_PATH=before)
