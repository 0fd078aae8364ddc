"""The engine directory: its files, and the checks that `open_engine` makes before any code is loaded.

Its layout is TensorRT-LLM's: config.json {version, pretrained_config, build_config}, one package of code and one weight
file per rank. manifest.json beside them says what the code was compiled for, and has a hash of each file.
build.py writes it; runtime/ runs it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint import CheckpointError, ModelConfig
from engineroom.checkpoint.config import from_trtllm
from engineroom.checkpoint.source import read_json
from engineroom.engine.config import Limits
from engineroom.kit import probe
from engineroom.kit.errors import UserError
from engineroom.kit.output import is_incomplete

VERSION = "engineroom-1"
CONFIG, MANIFEST, LOG, TOKENIZER = "config.json", "manifest.json", "build.log", "tokenizer"
RANK = 0  # an engine has one rank today; only this constant says so
# The graphs in a package. No name may be a prefix of another: see torch_private.package_graphs.
GRAPHS = {"cpu": ("context", "generation"), "cuda": ("context", "generation", "single")}
HASHED_BYTES = 64 << 20


class EngineError(UserError, RuntimeError):
    """This engine cannot be used here; the message says why and what to do."""


def package(rank: int = RANK) -> str:
    """The file name of a rank's compiled graphs."""
    return f"rank{rank}.pt2"


def weights(rank: int = RANK) -> str:
    """The file name of a rank's weights, as TensorRT-LLM names weights outside the engine (--fast_build)."""
    return f"rank{rank}_managed_weights.safetensors"


@dataclass(frozen=True)
class EngineDir:
    """One rank of an engine directory that `open_engine` has checked."""

    path: Path
    pretrained_config: dict[str, Any]  # the checkpoint's config.json
    limits: Limits
    manifest: dict[str, Any]
    rank: int = RANK

    @cached_property
    def model(self) -> ModelConfig:
        return from_trtllm(self.pretrained_config, self.path / CONFIG)

    @property
    def device(self) -> str:
        """The device that the engine was built for, "cpu" or "cuda"."""
        return self.manifest["target"]["device"]

    @property
    def packed(self) -> bool:
        """Whether the weights of the products are in panels (kernels/cpu.py)."""
        return self.manifest["packed"]

    @property
    def package(self) -> Path:
        """The compiled graphs, GRAPHS[device]."""
        return self.path / package(self.rank)

    @property
    def weights(self) -> Path:
        """The weights, under the names of model.Decoder."""
        return self.path / weights(self.rank)


def target(device: str) -> dict[str, Any]:
    """What machine code depends on: device, torch release, GPU and its compute capability, or instruction sets."""
    facts: dict[str, Any] = {"device": device, "torch": torch.__version__, "machine": platform.machine()}
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return facts | {
            "gpu": torch.cuda.get_device_name(),
            "compute_capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    return facts | {"isa": sorted(probe.cpu()[1])}


def digest(path: Path) -> str:
    """A file's hash: the hexadecimal sha256 of the sha256 hashes of its 64 MiB parts, computed in parallel."""

    def hash_from(offset: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return hashlib.sha256(file.read(HASHED_BYTES)).digest()

    with ThreadPoolExecutor() as pool:
        hashes = pool.map(hash_from, range(0, path.stat().st_size, HASHED_BYTES))
        return hashlib.sha256(b"".join(hashes)).hexdigest()


def write_config(folder: Path, pretrained_config: dict[str, Any], limits: Limits) -> None:
    """Write config.json, with TensorRT-LLM's keys."""
    build_config = asdict(limits) | {"kv_cache_type": "PAGED"}
    text = {"version": VERSION, "pretrained_config": pretrained_config, "build_config": build_config}
    (folder / CONFIG).write_text(json.dumps(text, indent=1) + "\n")


def write_manifest(folder: Path, device: str, facts: dict[str, Any]) -> None:
    """Write manifest.json: the target, a hash of every file in `folder`, and `facts`. Call it after all other files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (MANIFEST, LOG))
    hashes = {file.relative_to(folder).as_posix(): digest(file) for file in files}
    text = json.dumps({"target": target(device), "sha256": hashes, **facts}, indent=1)
    (folder / MANIFEST).write_text(text + "\n")


def open_engine(path: str | Path, world_size: int = 1) -> EngineDir:
    """Check an engine directory and describe it; none of its code has run when this returns.

    Raises EngineError for a folder that is not an engine; for an engine whose layout, rank count, device, instruction
    set, torch or CUDA release is not that of this machine; and for a file that is missing or changed.
    """
    path = Path(path)
    if is_incomplete(path):
        raise EngineError(f"{path} was left by an interrupted build. Build again.")
    advice = "Expected an engine directory, as `engineroom build` writes it."
    try:
        config, manifest = read_json(path / CONFIG, advice), read_json(path / MANIFEST, advice)
    except CheckpointError as error:
        raise EngineError(str(error)) from None
    if config.get("version") != VERSION or "build_config" not in config:
        raise EngineError(
            f"{path} has layout {config.get('version')!r}, expected {VERSION!r}. Build it again."
        )
    _check_target(path, manifest.get("target", {}))
    _check_files(path, manifest.get("sha256", {}))
    ranks = (config["pretrained_config"].get("mapping") or {}).get("world_size", 1)
    if ranks != world_size:
        raise EngineError(
            f"{path} was built for {ranks} ranks, and {world_size} would run it. Start {ranks}."
        )
    limits = Limits(**{field.name: config["build_config"][field.name] for field in fields(Limits)})
    return EngineDir(path, config["pretrained_config"], limits, manifest)


def _check_target(path: Path, built: dict[str, Any]) -> None:
    if built.get("device") == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"{path} was built for {built.get('gpu')}; this machine has no GPU. Build it for the CPU."
        )
    actual = target(str(built.get("device", "cpu")))
    if missing := set(built.get("isa", [])) - set(actual.get("isa", [])):
        raise EngineError(
            f"{path} was built for a processor with {', '.join(sorted(missing))}, which this one lacks: its code would "
            f"stop with an illegal instruction. Build it here."
        )
    for name in ("machine", "gpu", "compute_capability", "torch", "cuda"):
        if built.get(name) != actual.get(name):
            raise EngineError(
                f"{path} was built for {name} {built.get(name)}, and this machine has {actual.get(name)}. Compiled "
                f"code runs with nothing else: build the engine again from its checkpoint."
            )


def _check_files(path: Path, hashes: dict[str, str]) -> None:
    missing = {CONFIG, package(), weights()} - hashes.keys()
    if missing:
        raise EngineError(
            f"{path / MANIFEST} does not list {', '.join(sorted(missing))}. Build the engine again."
        )
    for name, expected in hashes.items():
        if not (path / name).is_file():
            raise EngineError(f"{path} lacks {name}. Copy the whole directory, or build it again.")
        if digest(path / name) != expected:
            raise EngineError(
                f"{path / name} is not the file that was built: its hash differs. It was not loaded. Copy the engine "
                f"again, or build it again."
            )
