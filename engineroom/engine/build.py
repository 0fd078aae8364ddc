"""From a TensorRT-LLM checkpoint to an engine directory, and new weights into one that stands."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engineroom.checkpoint import Checkpoint, open_checkpoint
from engineroom.engine.compile import GRAPHS, Say, compile_graphs
from engineroom.engine.config import BuildConfig, BuildError, deduce
from engineroom.engine.directory import (
    CONFIG,
    LOG,
    TOKENIZER,
    VERSION,
    EngineDir,
    open_engine,
    package,
    target,
    write_manifest,
)
from engineroom.engine.directory import weights as weight_file
from engineroom.engine.kernels.cpu import pack, packs
from engineroom.engine.model import EMBEDDING, fuse, skeleton
from engineroom.kit.files import home
from engineroom.kit.output import output_directory

Fill = Callable[[Path], dict[str, Any]]


def build(
    checkpoint_dir: str | Path,
    output_dir: str | Path,
    config: BuildConfig | None = None,
    *,
    device: str = "cpu",
    tokenizer_dir: str | Path | None = None,
    say: Say = print,
) -> EngineDir:
    """Compile a checkpoint of one rank for `device`, "cpu" or "cuda", and write the engine directory.

    Code that was compiled before for the same sizes, limits, machine and torch comes out of the build cache: a folder
    of ENGINEROOM_HOME, or the one that ENGINEROOM_BUILDS names. Raises BuildError for limits that cannot be,
    CheckpointError for an unreadable checkpoint, OutputError for an output that is taken.
    """
    checkpoint = open_checkpoint(checkpoint_dir)
    made, explained = deduce(config or BuildConfig(), checkpoint.config)
    _refuse(checkpoint, made, device)
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        say(line)

    for line in explained:
        tell(line)

    def fill(folder: Path) -> dict[str, Any]:
        seconds = _code(checkpoint, made, device, folder / package(0), tell)
        packed = packs(device, checkpoint.config["dtype"])
        _weights(checkpoint, folder, packed)
        text = {"version": VERSION, "pretrained_config": checkpoint.config, "build_config": asdict(made)}
        (folder / CONFIG).write_text(json.dumps(text, indent=1) + "\n")
        if tokenizer_dir:
            _tokenizer(Path(tokenizer_dir), folder / TOKENIZER)
        (folder / LOG).write_text("\n".join(lines) + "\n")
        return {"seconds": seconds, "packed": packed}

    return _write(output_dir, device, fill, nbytes(checkpoint))


def refit(engine_dir: str | Path, checkpoint_dir: str | Path, output_dir: str | Path) -> EngineDir:
    """A copy of an engine with the weights of another checkpoint of the same sizes and dtype; nothing is compiled.

    Raises BuildError when the checkpoint has other sizes, another dtype or another rope; EngineError for the engine.
    """
    engine, checkpoint = open_engine(engine_dir), open_checkpoint(checkpoint_dir)
    ours, theirs = engine.pretrained, checkpoint.config
    if unequal := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key)):
        raise BuildError(
            f"{checkpoint_dir} differs from what was built in {', '.join(unequal)}. Build it anew."
        )

    def fill(folder: Path) -> dict[str, Any]:
        began = time.perf_counter()
        for name in (package(0), CONFIG, LOG):
            shutil.copy(engine.path / name, folder / name)
        if (engine.path / TOKENIZER).is_dir():
            shutil.copytree(engine.path / TOKENIZER, folder / TOKENIZER)
        packed = bool(engine.manifest.get("packed"))
        _weights(checkpoint, folder, packed)
        return {"seconds": {"refit": time.perf_counter() - began}, "packed": packed}

    return _write(output_dir, engine.manifest["target"]["device"], fill, nbytes(checkpoint))


def nbytes(checkpoint: Checkpoint) -> int:
    return sum(place.nbytes for place in checkpoint.ranks[0].values())


def _refuse(checkpoint: Checkpoint, config: BuildConfig, device: str) -> None:
    if len(checkpoint.ranks) != 1:
        raise BuildError(
            f"{checkpoint.directory} has {len(checkpoint.ranks)} ranks. Convert it with --tp_size 1 --pp_size 1."
        )
    if device not in GRAPHS:
        raise BuildError(f"--device {device}: expected one of {', '.join(GRAPHS)}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BuildError("--device cuda: this machine has no GPU that torch can use. Build for the cpu here.")
    size = checkpoint.model.head_size
    if device == "cuda" and (size < 16 or size & (size - 1) or config.tokens_per_block < 16):
        raise BuildError(
            f"--device cuda: head_size is {size}, --tokens_per_block {config.tokens_per_block}; the attention kernel "
            f"takes powers of two from 16 up."
        )


def _write(output_dir: str | Path, device: str, fill: Fill, needed: int) -> EngineDir:
    with output_directory(output_dir, needed) as folder:
        more = fill(folder)
        write_manifest(folder, device, more)
    return open_engine(output_dir)


def _weights(checkpoint: Checkpoint, folder: Path, packed: bool) -> None:
    """The checkpoint's tensors, fused as the model has them; `packed`: its matrices, but the embedding, in panels."""
    tensors = fuse(checkpoint.load(0))
    for name, tensor in tensors.items():
        if packed and tensor.dim() == 2 and name != f"{EMBEDDING}.weight":
            tensors[name] = pack(tensor)
    save_file(tensors, folder / weight_file(0))


def _tokenizer(source: Path, folder: Path) -> None:
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "generation_config.json",
    )
    found = [source / name for name in names if (source / name).is_file()]
    if not any(file.name == "tokenizer.json" for file in found):
        raise BuildError(
            f"--tokenizer_dir {source}: no tokenizer.json. Give the Hugging Face folder of the model."
        )
    folder.mkdir()
    for file in found:
        shutil.copyfile(file, folder / file.name)


def _code(checkpoint: Checkpoint, config: BuildConfig, device: str, goal: Path, say: Say) -> dict[str, float]:
    """Put the package at `goal`, compiled or out of the cache."""
    cache = Path(os.environ.get("ENGINEROOM_BUILDS") or home("engine-cache"))
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / f"{_key(checkpoint, config, device)}.pt2"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who builds the same now is waited for
        if kept.is_file():
            say("compiled before for these sizes, limits and machine: taken from the build cache")
            shutil.copyfile(kept, goal)
            return {"cached": 0.0}
        seconds = _compile(checkpoint, config, device, goal, cache, say)
        temporary = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(goal, temporary)
        temporary.replace(kept)
    return seconds


def _compile(
    checkpoint: Checkpoint, config: BuildConfig, device: str, goal: Path, cache: Path, say: Say
) -> dict[str, float]:
    packed = packs(device, checkpoint.config["dtype"])
    decoder = skeleton(checkpoint.model, checkpoint.config, packed).to_empty(device=device)
    seconds = compile_graphs(decoder, config, goal, cache, say)
    del decoder
    torch.cuda.empty_cache()
    return seconds


def _key(checkpoint: Checkpoint, config: BuildConfig, device: str) -> str:
    """Everything that the compiled code depends on; weights are not among it."""
    parts = (
        "compile.py",
        "layers.py",
        "model.py",
        "kernels/attention.py",
        "kernels/products.py",
        "kernels/cpu.py",
        "kernels/cpu.cpp",
    )
    sources = [(Path(__file__).parent / part).read_text() for part in parts]
    facts = [checkpoint.config, asdict(config), target(device), sources]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
