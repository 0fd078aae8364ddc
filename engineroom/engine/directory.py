"""An engine directory: what is in it, and every reason to refuse it before any of its code is loaded.

TensorRT-LLM's shape: config.json {version, pretrained_config, build_config}, one package and one weight file a rank;
and a manifest with what a loader must know to refuse politely.
"""

from __future__ import annotations

import hashlib
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint import CheckpointError, ModelConfig
from engineroom.checkpoint.config import from_trtllm
from engineroom.checkpoint.source import read_json
from engineroom.engine.config import BuildConfig
from engineroom.kit import probe
from engineroom.kit.errors import UserError
from engineroom.kit.output import SUFFIX

VERSION = "engineroom-1"
PIECE = 64 << 20
CONFIG, MANIFEST, LOG, TOKENIZER = "config.json", "manifest.json", "build.log", "tokenizer"


class EngineError(UserError, RuntimeError):
    """This engine cannot be used here; says why and what to do."""


def package(rank: int) -> str:
    return f"rank{rank}.pt2"


def weights(rank: int) -> str:
    """TensorRT-LLM's name for weights outside of the engine (`trtllm-build --fast_build`)."""
    return f"rank{rank}_managed_weights.safetensors"


@dataclass(frozen=True)
class EngineDir:
    """An engine that was checked: `pretrained` and `build` are the two halves of config.json."""

    path: Path
    pretrained: dict[str, Any]
    build: BuildConfig
    manifest: dict[str, Any]

    @property
    def model(self) -> ModelConfig:
        return from_trtllm(self.pretrained, self.path / CONFIG)


def target(device: str) -> dict[str, Any]:
    """What machine code is made for: device kind, its name and capability or instruction set, and the torch release."""
    made: dict[str, Any] = {"device": device, "torch": torch.__version__, "machine": platform.machine()}
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return made | {
            "gpu": torch.cuda.get_device_name(),
            "compute_capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    return made | {"isa": sorted(probe.cpu()[1])}


def digest(path: Path) -> str:
    """sha256 over the sha256 of each 64 MiB of a file, in hexadecimal: all processors share the work on a large one."""

    def piece(first: int) -> bytes:
        with path.open("rb") as file:
            file.seek(first)
            return hashlib.sha256(file.read(PIECE)).digest()

    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(piece, range(0, path.stat().st_size, PIECE)))).hexdigest()


def write_manifest(folder: Path, device: str, more: dict[str, Any]) -> None:
    """Last of all: hashes of every file that is there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (MANIFEST, LOG))
    hashes = {file.relative_to(folder).as_posix(): digest(file) for file in files}
    text = json.dumps({"target": target(device), "sha256": hashes, **more}, indent=1)
    (folder / MANIFEST).write_text(text + "\n")


def open_engine(path: str | Path, world_size: int = 1) -> EngineDir:
    """Check an engine directory and say what is in it; nothing of it has run when this returns.

    Raises EngineError for a folder that is no engine, of another layout, rank count, device, instruction set, torch or
    CUDA release, and for a file that is missing or changed.
    """
    path = Path(path)
    if path.name.endswith(SUFFIX):
        raise EngineError(f"{path} is what an interrupted build left. Build again.")
    advice = "Expected an engine directory, as `engineroom build` writes it."
    try:
        config, manifest = read_json(path / CONFIG, advice), read_json(path / MANIFEST, advice)
    except CheckpointError as error:
        raise EngineError(str(error)) from None
    if config.get("version") != VERSION or "build_config" not in config:
        raise EngineError(
            f"{path} has layout {config.get('version')!r}, expected {VERSION!r}. Build it again."
        )
    _same_machine(path, manifest.get("target", {}))
    _unchanged(path, manifest.get("sha256", {}))
    ranks = (config["pretrained_config"].get("mapping") or {}).get("world_size", 1)
    if ranks != world_size:
        raise EngineError(
            f"{path} was built for {ranks} ranks, and {world_size} would run it. Start {ranks}."
        )
    return EngineDir(path, config["pretrained_config"], BuildConfig(**config["build_config"]), manifest)


def _same_machine(path: Path, built: dict[str, Any]) -> None:
    if built.get("device") == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"{path} was built for {built.get('gpu')}; this machine has no GPU. Build it for the CPU."
        )
    here = target(str(built.get("device", "cpu")))
    if missing := set(built.get("isa", [])) - set(here.get("isa", [])):
        raise EngineError(
            f"{path} was built for a processor with {', '.join(sorted(missing))}, which this one lacks: its code would "
            f"stop with an illegal instruction. Build it here."
        )
    for name in ("machine", "gpu", "compute_capability", "torch", "cuda"):
        if built.get(name) != here.get(name):
            raise EngineError(
                f"{path} was built for {name} {built.get(name)}, here it is {here.get(name)}. Compiled code is bound "
                f"to it: build the engine again from its checkpoint."
            )


def _unchanged(path: Path, hashes: dict[str, str]) -> None:
    needed = {CONFIG, package(0), weights(0)} - hashes.keys()
    if needed:
        raise EngineError(
            f"{path / MANIFEST} does not list {', '.join(sorted(needed))}. Build the engine again."
        )
    for name, wanted in hashes.items():
        if not (path / name).is_file():
            raise EngineError(f"{path} lacks {name}. Copy the whole directory, or build it again.")
        if digest(path / name) != wanted:
            raise EngineError(
                f"{path / name} is not the file that was built: its hash differs. It was not loaded. Copy the engine "
                f"again, or build it again."
            )
