"""Compile the graphs of a decoder (model.py), with torch.export and AOTInductor, to one package without weights.

build.py calls `compile_graphs`; directory.py says where the package goes. torch.export takes seconds to import. Only a
build needs it, so the functions import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engineroom.engine.config import Limits
from engineroom.engine.directory import GRAPHS
from engineroom.engine.fork import run_in_fork
from engineroom.engine.kernels.cpu import linked_kernels
from engineroom.engine.layers import tokens_per_tile
from engineroom.engine.model import Decoder, Generation, KvCacheShape
from engineroom.engine.torch_private import aot_compile, package_graphs, plain_inductor_cache
from engineroom.kit.temporary import Requirements, temporary_folder

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_BLOCKS = 2**20
# torch does not quote the paths of what it compiles
SCRATCH = Requirements(plain=True, free_bytes=128 << 20)
OPTIONS = {
    "aot_inductor.package": True,
    "aot_inductor.package_constants_in_so": False,  # weights stay outside: all graphs share one copy, and refit works
    "aot_inductor.check_lowerbound": False,
}
Log = Callable[[str], object]


def compile_graphs(
    decoder: Decoder, limits: Limits, path: Path, cache: Path, log: Log = print
) -> dict[str, float]:
    """Compile all graphs of a decoder and write the package `path`; returns the seconds of each stage.

    On a CPU the graphs are compiled in parallel, each in its own process, and the object file of our kernels is kept in
    the folder `cache`.
    """
    device = decoder.lm_head.weight.device.type
    # CUDA does not survive a fork
    forked = GRAPHS[device][1:] if device == "cpu" and not torch.cuda.is_initialized() else ()
    seconds: dict[str, float] = {}
    files: dict[str, list[Any]] = {}
    with ExitStack() as stack:
        # a folder of our own instead of torch's cache: two builds of the same graph would write the same files there,
        # and one could package what the other has half written
        output_path = stack.enter_context(temporary_folder(SCRATCH))
        stack.enter_context(plain_inductor_cache())
        options = OPTIONS | {"aot_inductor.output_path": str(output_path)}
        if device == "cpu":
            options |= stack.enter_context(linked_kernels(cache))
        results = {
            graph: stack.enter_context(run_in_fork(partial(compile_graph, decoder, limits, options, graph)))
            for graph in forked
        }
        for graph in GRAPHS[device]:
            compile_or_wait = results.get(graph) or partial(compile_graph, decoder, limits, options, graph)
            files[graph], stages = compile_or_wait()
            for stage, value in stages.items():
                log(f"{stage}: {value:.1f} s")
            seconds |= stages
        package_graphs(path, files)
    return seconds


def compile_graph(
    decoder: Decoder, limits: Limits, options: dict[str, Any], graph: str
) -> tuple[list[Any], dict[str, float]]:
    """The files of one graph for `package_graphs`, and the seconds of each stage."""
    start = time.perf_counter()
    program = export(decoder, limits, graph)
    exported = time.perf_counter()
    files = aot_compile(program, options)
    compiled = time.perf_counter()
    return files, {f"{graph} export": exported - start, f"{graph} compile": compiled - exported}


def export(decoder: Decoder, limits: Limits, graph: str) -> ExportedProgram:
    """One graph, "context", "generation" or "single" (a generation graph for one sequence).

    Its numbers of tokens, sequences and KV cache blocks are dynamic, up to `limits`; all other sizes are static.
    """
    from torch.export import Dim

    device = decoder.lm_head.weight.device.type
    k_caches, v_caches = KvCacheShape.of(decoder.model, limits, device).allocate(8)
    num_blocks = [{0: Dim("num_blocks", min=2, max=MAX_BLOCKS)}] * len(k_caches)
    num_sequences = Dim("num_sequences", min=1, max=max(4, limits.max_batch_size))

    def example(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.long, device=device)

    if graph == "context":
        # on a GPU the last tile of each sequence is padded
        max_tokens = limits.max_num_tokens + tokens_per_tile(1) * limits.max_batch_size
        tokens = {0: Dim("num_tokens", min=1, max=max(8, max_tokens))}
        sequences = {0: num_sequences}
        block_tables = example(2, limits.max_blocks_per_sequence)
        tensors = (example(6), example(6), example(6), block_tables, example(6), example(2))
        shapes: tuple[Any, ...] = (tokens, tokens, tokens, sequences, tokens, sequences)
        module: torch.nn.Module = decoder
    else:
        num_slots = limits.max_batch_size + 1  # one more for the padding of CUDA graphs
        block_tables = example(num_slots, limits.max_blocks_per_sequence)
        tensors = (example(3, 1 if graph == "single" else 2), example(num_slots), block_tables)
        shapes = ({} if graph == "single" else {1: num_sequences}, {}, {})
        module = Generation(decoder)
    return torch.export.export(
        module,
        (*tensors, k_caches, v_caches),
        dynamic_shapes=(*shapes, num_blocks, num_blocks),
        strict=False,
    )
