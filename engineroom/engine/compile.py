"""torch.export and AOTInductor: the graphs of a decoder, compiled to one package without weights.

Both are imported by the functions that use them: they take seconds, which who runs an engine can spare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from engineroom.engine.config import BuildConfig
from engineroom.engine.forked import forked
from engineroom.engine.kernels.cpu import linked
from engineroom.engine.layers import tile
from engineroom.engine.model import Decoder, Generation, Pools

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# no name may begin with another: the loader of a package takes every file whose path begins with the name
GRAPHS = {"cpu": ("context", "generation"), "cuda": ("context", "generation", "single")}
MOST_BLOCKS = 2**20
OPTIONS = {
    "aot_inductor.package": True,
    "aot_inductor.package_constants_in_so": False,  # weights stay outside: one copy for both graphs, and refit
    "aot_inductor.check_lowerbound": False,
}
Say = Callable[[str], object]


@dataclass(frozen=True)
class Shapes:
    """What the KV pools look like: one pair [blocks, tokens_per_block, kv_heads, head_size] a layer."""

    layers: int
    tokens_per_block: int
    kv_heads: int
    head_size: int
    dtype: torch.dtype
    device: str

    def pools(self, blocks: int) -> tuple[Pools, Pools]:
        size = (blocks, self.tokens_per_block, self.kv_heads, self.head_size)
        keys, values = (
            [torch.zeros(size, dtype=self.dtype, device=self.device) for _ in range(self.layers)]
            for _ in "kv"
        )
        return keys, values

    def bytes_per_block(self) -> int:
        """Of one block of all layers, keys and values."""
        return 2 * self.layers * self.tokens_per_block * self.kv_heads * self.head_size * self.dtype.itemsize


def shapes(decoder: Decoder, config: BuildConfig) -> Shapes:
    model, weight = decoder.model, decoder.lm_head.weight
    kind = (weight.dtype, weight.device.type)
    return Shapes(
        model.num_hidden_layers, config.tokens_per_block, model.num_key_value_heads, model.head_size, *kind
    )


def export(decoder: Decoder, config: BuildConfig, graph: str) -> ExportedProgram:
    """One graph with its sizes open up to the limits of `config`, deduced; seats and pages are those of `config`."""
    from torch.export import Dim

    keys, values = shapes(decoder, config).pools(8)
    pages, seats = config.blocks_per_sequence, config.max_batch_size + 1
    pools = [{0: Dim("blocks", min=2, max=MOST_BLOCKS)}] * len(keys)
    sequences = {0: Dim("sequences", min=1, max=max(4, config.max_batch_size))}
    decoder.context = graph == "context"

    def whole(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.long, device=keys[0].device)

    if graph == "context":
        most = int(config.max_num_tokens or 0) + tile(1) * config.max_batch_size
        many = {0: Dim("tokens", min=1, max=max(8, most))}
        given = (whole(6), whole(6), whole(6), whole(2, pages), whole(6), whole(2), keys, values)
        sizes: tuple[Any, ...] = (many, many, many, sequences, many, sequences, pools, pools)
        return torch.export.export(decoder, given, dynamic_shapes=sizes, strict=False)
    count, rows = (1, {}) if graph == "single" else (2, {1: sequences[0]})
    given = (whole(3, count), whole(seats), whole(seats, pages), keys, values)
    return torch.export.export(
        Generation(decoder), given, dynamic_shapes=(rows, {}, {}, pools, pools), strict=False
    )


def aot_compile(program: ExportedProgram, options: dict[str, Any] | None = None) -> list[Any]:
    """The files of one graph, for a package."""
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    def declare(self: Any, array: str, line: Say, known_statically: bool = False, graph: Any = None) -> str:
        return self._codegen_int_array_var_impl(array, line, known_statically)

    # torch 2.11 to 2.13 take an array for declared where an address in memory is used again: "int_array_70 was not
    # declared". Without that cache every use declares its own.
    with patch.object(CppWrapperCpu, "codegen_int_array_var", declare):
        return torch._inductor.aot_compile(
            program.module(), *program.example_inputs, options=OPTIONS | (options or {})
        )


def compile_graph(
    decoder: Decoder, config: BuildConfig, options: dict[str, Any], graph: str, say: Say | None = None
) -> tuple[list[Any], dict[str, float]]:
    """The files of one graph, and the seconds of each stage."""
    began = time.perf_counter()
    program = export(decoder, config, graph)
    seconds = {f"{graph} export": time.perf_counter() - began}
    _tell(seconds, say)
    began = time.perf_counter()
    files = aot_compile(program, options)
    compiling = {f"{graph} compile": time.perf_counter() - began}
    _tell(compiling, say)
    return files, seconds | compiling


def _tell(seconds: dict[str, float], say: Say | None) -> None:
    for stage, value in seconds.items() if say else ():
        say(f"{stage}: {value:.1f} s")


def compile_graphs(
    decoder: Decoder, config: BuildConfig, path: Path, cache: Path, say: Say = print
) -> dict[str, float]:
    """Write the package `path`; returns the seconds of each stage. On a CPU the graphs are compiled side by side, and
    the kernels are kept in the folder `cache`."""
    from torch.export.pt2_archive._package import package_pt2

    device = decoder.lm_head.weight.device.type
    beside = GRAPHS[device][1:] if device == "cpu" and not torch.cuda.is_initialized() else ()
    seconds: dict[str, float] = {}
    files: dict[str, Any] = {}
    with ExitStack() as stack:
        # not torch's own cache: two who build the same would write the same files, and pack what is half written
        place = stack.enter_context(TemporaryDirectory(dir=path.parent))
        options = stack.enter_context(linked(cache)) if device == "cpu" else {}
        options["aot_inductor.output_path"] = place
        work = partial(compile_graph, decoder, config, options)
        forks = {graph: stack.enter_context(forked(partial(work, graph))) for graph in beside}
        for graph in GRAPHS[device]:
            if graph in forks:
                files[graph], took = forks[graph]()
                _tell(took, say)
            else:
                files[graph], took = work(graph, say)
            seconds |= took
        package_pt2(str(path), aoti_files=files)
    return seconds
