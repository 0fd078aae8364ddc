"""All private parts of torch that the engine uses. No other file uses any.

Each docstring names the file of torch 2.13.0 that it follows, and says why no public function does the job. torch may
change them in any release: before you raise the pin in pyproject.toml, compare this file with the new sources.

torch._inductor and torch.export take seconds to import. Only a build needs them, so the functions import them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from engineroom.engine.config import BuildError
from engineroom.kit.temporary import PLAIN, Requirements, temporary_base, tmpdir_for

if TYPE_CHECKING:
    from torch.export import ExportedProgram


LIBRARIES = Requirements(executable=True)


class CompiledGraph(Protocol):
    """One compiled graph of a package, as torch/_C/_aoti.pyi declares AOTIModelPackageLoader."""

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        """Run the graph; `inputs` is one flat list, without the lists that the exported function takes."""
        ...

    def get_constant_fqns(self) -> list[str]:
        """The names of the weights and buffers that the graph reads."""
        ...

    def load_constants(
        self, constants: dict[str, Tensor], use_inactive: bool, check_full_update: bool, user_managed: bool
    ) -> None:
        """Give the graph its weights. `user_managed`: the graph reads these tensors in place, without a copy."""
        ...


def load_package(path: Path, graph_name: str) -> CompiledGraph:
    """One graph of the package that `package_graphs` wrote (torch/csrc/inductor/aoti_package/pybind.cpp).

    The public torch._inductor.aoti_load_package takes its inputs as a pytree and allows no single-threaded runner; only
    a single-threaded one can be captured in a CUDA graph.
    """
    run_single_threaded, num_runners, device_index = True, 1, -1
    loader = torch._C._aoti.AOTIModelPackageLoader  # pyright: ignore[reportAttributeAccessIssue]  # not in the stub
    with tmpdir_for(LIBRARIES):  # where it unpacks the graph's library
        return loader(str(path), graph_name, run_single_threaded, num_runners, device_index)


def package_graphs(path: Path, files: Mapping[str, list[Any]]) -> None:
    """Write one package of several graphs; `files` maps each graph's name to what `aot_compile` returned.

    torch/export/pt2_archive/_package.py. The public torch._inductor.aoti_compile_and_package writes a package of one
    graph. No name may be a prefix of another: the loader takes every file whose path begins with the name.
    """
    from torch.export.pt2_archive._package import package_pt2

    package_pt2(str(path), aoti_files=dict(files))


def aot_compile(program: ExportedProgram, options: dict[str, Any]) -> list[Any]:
    """Compile an exported graph with AOTInductor; returns the paths of its files, for `package_graphs`.

    torch/_inductor/__init__.py. The public function compiles and packages in one step.
    """
    graph = cast(torch.fx.GraphModule, program.module())
    inputs = program.example_inputs
    assert inputs is not None, "torch.export keeps the example inputs"
    with _int_arrays_declared_anew(), _library_folders_quoted():
        return cast(list[Any], torch._inductor.aot_compile(graph, *inputs, options=options))


@contextmanager
def _int_arrays_declared_anew() -> Iterator[None]:
    """Let each use of an array of sizes declare its own C++ array (torch/_inductor/codegen/cpp_wrapper_cpu.py).

    torch 2.11 to 2.13 caches declarations by the address of the function that writes them. When that address is used
    again, the cache takes an undeclared array for a declared one. The C++ compiler then says
    "int_array_70 was not declared".
    """
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    def declare(
        self: Any,
        int_array: str,
        writeline: Callable[..., None],
        known_statically: bool = False,
        graph: object = None,
    ) -> str:
        return self._codegen_int_array_var_impl(int_array, writeline, known_statically)

    cached = CppWrapperCpu.codegen_int_array_var
    CppWrapperCpu.codegen_int_array_var = declare
    try:
        yield
    finally:
        CppWrapperCpu.codegen_int_array_var = cached


@contextmanager
def plain_inductor_cache() -> Iterator[None]:
    """Let torch keep what it compiles where no path needs quotes (torch/_inductor/runtime/cache_dir_utils.py).

    By default that is a folder in TMPDIR, which torch notes in the environment at its first use.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    current = os.environ.get(name)
    if current is None or not PLAIN.fullmatch(current):
        os.environ[name] = str(temporary_base(Requirements(plain=True)) / f"torchinductor_{os.getuid()}")
    try:
        yield
    finally:
        if current is None:
            os.environ.pop(name)
        else:
            os.environ[name] = current


@contextmanager
def _library_folders_quoted() -> Iterator[None]:
    """Let torch's own folder have spaces and quotes in its path (torch/_inductor/cpp_builder.py).

    torch quotes the folders of headers in the compiler's command line, but not those of libraries.
    """
    from torch._inductor.cpp_builder import BuildOptionsBase

    unquoted = BuildOptionsBase.get_libraries_dirs
    BuildOptionsBase.get_libraries_dirs = lambda self: [shlex.quote(folder) for folder in unquoted(self)]
    try:
        yield
    finally:
        BuildOptionsBase.get_libraries_dirs = unquoted


def cpp_compiler() -> str:
    """The C++ compiler that torch.compile uses (torch/_inductor/cpp_builder.py). Raises BuildError if there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return get_cpp_compiler()
    except InvalidCxxCompiler:
        raise BuildError(
            "an engine for the CPU needs a C++ compiler, and none works here. Install g++, or set CXX to yours."
        ) from None


def vector_isa_flags() -> list[str]:
    """Compiler flags for this processor's vector instructions (torch/_inductor/cpu_vec_isa.py).

    `cpp.vec_isa_ok` saves torch the trial compilation of a file for each instruction set; a compiler that lacks one
    fails at our own file instead.
    """
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    with config.patch({"cpp.vec_isa_ok": True}):
        isa = pick_vec_isa()
    return [*isa.build_arch_flags().split(), *(f"-D{macro}" for macro in isa.build_macro())]


def has_bf16_products() -> bool:
    """Whether oneDNN, behind F.linear on a CPU, multiplies bfloat16 with this processor's own instructions
    (aten/src/ATen/native/mkldnn/Utils.h)."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
