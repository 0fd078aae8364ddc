"""Build an engine directory from a TensorRT-LLM checkpoint, and refit an engine with other weights.

Read config.py before this file: it deduces the limits. model.py, layers.py and kernels/ define what is
compiled, compile.py and build_cache.py how it is compiled, and directory.py what is written. runtime/ runs the result.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Checkpoint, open_checkpoint
from engineroom.engine.build_cache import cache_folder, cache_key, fetch_or_compile
from engineroom.engine.compile import Log, compile_graphs
from engineroom.engine.config import BuildConfig, BuildError, Limits, deduce
from engineroom.engine.directory import (
    CONFIG,
    GRAPHS,
    LOG,
    RANK,
    TOKENIZER,
    EngineDir,
    open_engine,
    package,
    weights,
    write_config,
    write_manifest,
)
from engineroom.engine.kernels.cpu import pack, packed_is_faster
from engineroom.engine.model import EMBEDDING, fuse, meta_decoder
from engineroom.kit.output import output_directory

TOKENIZER_BYTES = 16 << 20  # upper bounds: the space on the disk is checked before the minute of compiling
CODE_BYTES = (16 << 20) + TOKENIZER_BYTES
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def build(
    checkpoint_dir: str | Path,
    output_dir: str | Path,
    config: BuildConfig | None = None,
    *,
    device: str = "cpu",
    tokenizer_dir: str | Path | None = None,
    log: Log = print,
) -> EngineDir:
    """Compile a checkpoint of one rank for `device`, "cpu" or "cuda", and write the engine directory.

    Code that was compiled before for the same sizes, limits, machine and torch is taken from the build cache: a folder
    in ENGINEROOM_HOME, or the one that ENGINEROOM_BUILDS names. Raises BuildError for impossible limits,
    CheckpointError for an unreadable checkpoint, OutputError when `output_dir` is not empty.
    """
    checkpoint = open_checkpoint(checkpoint_dir)
    limits, explanations = deduce(config or BuildConfig(), checkpoint.config)
    _check_buildable(checkpoint, limits, device)
    packed = packed_is_faster(device, checkpoint.model.dtype)
    lines: list[str] = []

    def log_and_keep(line: str) -> None:
        lines.append(line)
        log(line)

    for explanation in explanations:
        log_and_keep(explanation)
    with output_directory(output_dir, checkpoint.nbytes + CODE_BYTES) as folder:
        seconds = _write_code(checkpoint, limits, device, packed, folder / package(), log_and_keep)
        _write_weights(checkpoint, folder / weights(), packed)
        write_config(folder, checkpoint.config, limits)
        if tokenizer_dir:
            _copy_tokenizer(Path(tokenizer_dir), folder / TOKENIZER)
        (folder / LOG).write_text("\n".join(lines) + "\n")
        write_manifest(folder, device, {"seconds": seconds, "packed": packed})
    return open_engine(output_dir)


def refit(engine_dir: str | Path, checkpoint_dir: str | Path, output_dir: str | Path) -> EngineDir:
    """Copy an engine and give the copy the weights of another checkpoint of the same model; nothing is compiled.

    Raises BuildError when the checkpoint's config.json differs from the engine's, EngineError for an engine that
    cannot be used here, and OutputError when `output_dir` is not empty.
    """
    engine, checkpoint = open_engine(engine_dir), open_checkpoint(checkpoint_dir)
    built, config = engine.pretrained_config, checkpoint.config
    if differences := sorted(key for key in built | config if built.get(key) != config.get(key)):
        raise BuildError(
            f"{checkpoint_dir} differs from the engine's model in {', '.join(differences)}. Build a new engine."
        )
    needed_bytes = checkpoint.nbytes + engine.package.stat().st_size + TOKENIZER_BYTES
    with output_directory(output_dir, needed_bytes) as folder:
        start = time.perf_counter()
        for file in (engine.package, engine.path / CONFIG, engine.path / LOG):
            shutil.copy(file, folder)
        if (engine.path / TOKENIZER).is_dir():
            shutil.copytree(engine.path / TOKENIZER, folder / TOKENIZER)
        _write_weights(checkpoint, folder / engine.weights.name, engine.packed)
        seconds = {"refit": time.perf_counter() - start}
        write_manifest(folder, engine.device, {"seconds": seconds, "packed": engine.packed})
    return open_engine(output_dir)


def _check_buildable(checkpoint: Checkpoint, limits: Limits, device: str) -> None:
    if len(checkpoint.ranks) != 1:
        raise BuildError(
            f"{checkpoint.directory} has {len(checkpoint.ranks)} ranks. Convert it with --tp_size 1 --pp_size 1."
        )
    if device not in GRAPHS:
        raise BuildError(f"--device {device}: expected one of {', '.join(GRAPHS)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BuildError("--device cuda: this machine has no GPU that torch can use. Build for the cpu here.")
    head_size = checkpoint.model.head_size
    if device == "cuda" and (head_size < 16 or head_size & (head_size - 1) or limits.tokens_per_block < 16):
        raise BuildError(
            f"--device cuda: head_size is {head_size}, --tokens_per_block {limits.tokens_per_block}; the attention "
            f"kernel takes powers of two from 16 up."
        )


def _write_code(
    checkpoint: Checkpoint, limits: Limits, device: str, packed: bool, path: Path, log: Log
) -> dict[str, float]:
    """Write the package of all graphs; returns the seconds of each stage."""

    def compile_package(path: Path) -> dict[str, float]:
        decoder = meta_decoder(checkpoint.model, packed).to_empty(device=device)
        seconds = compile_graphs(decoder, limits, path, cache_folder(), log)
        del decoder
        torch.cuda.empty_cache()
        return seconds

    return fetch_or_compile(cache_key(checkpoint.config, limits, device, packed), path, compile_package, log)


def _write_weights(checkpoint: Checkpoint, path: Path, packed: bool) -> None:
    """Write the checkpoint's tensors under the decoder's names; `packed`: pack all matrices but the embedding."""
    tensors = fuse(checkpoint.load(RANK))
    for name, tensor in tensors.items():
        if packed and tensor.dim() == 2 and name != f"{EMBEDDING}.weight":
            tensors[name] = pack(tensor)
    save_file(tensors, path)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    if not (source / "tokenizer.json").is_file():
        raise BuildError(
            f"--tokenizer_dir {source}: no tokenizer.json. Give the Hugging Face folder of the model."
        )
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
