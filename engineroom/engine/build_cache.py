"""The build cache: compiled packages, each under a hash of everything that its code depends on.

build.py asks here before it compiles (compile.py). Weights are not part of a package, so a checkpoint with
other weights finds the same package.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engineroom.checkpoint import config as checkpoint_config
from engineroom.engine.config import Limits
from engineroom.engine.directory import target
from engineroom.kit.files import home, make_folder, require_writable

PACKAGE = Path(__file__).parent
SUFFIXES = (".py", ".cpp", ".h")


def cache_folder() -> Path:
    """The folder that ENGINEROOM_BUILDS names, or one in ENGINEROOM_HOME; created if missing. Raises FolderError."""
    folder = Path(os.environ.get("ENGINEROOM_BUILDS") or home("engine-cache"))
    remedy = "Set ENGINEROOM_BUILDS to"
    return require_writable(make_folder(folder, remedy), remedy)


def cache_key(
    pretrained_config: dict[str, Any], limits: Limits, device: str, packed: bool, package: Path = PACKAGE
) -> str:
    """A hash of the model's sizes, the limits, the target and the sources in `package` that decide the code."""
    facts = [pretrained_config, asdict(limits), target(device), packed, source_hashes(package)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def source_hashes(package: Path) -> dict[str, str]:
    """sha256 of the engine's source files and of checkpoint/config.py, by name; runtime/ generates no code."""
    files = {file.relative_to(package).as_posix(): file for file in package.rglob("*")}
    sources = {
        name: file
        for name, file in files.items()
        if file.suffix in SUFFIXES and not name.startswith("runtime/")
    }
    sources["checkpoint/config.py"] = Path(checkpoint_config.__file__)
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sources.items()}


def fetch_or_compile(
    key: str, path: Path, compile_package: Callable[[Path], dict[str, float]], log: Callable[[str], object]
) -> dict[str, float]:
    """Write the package `key` to `path`, from the cache or with `compile_package(path)`; returns the seconds by stage.

    If another process is compiling the same package, this waits for it.
    """
    cached = cache_folder() / f"{key}.pt2"
    with cached.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if cached.is_file():
            log("compiled before for these sizes, limits and this machine: taken from the build cache")
            shutil.copyfile(cached, path)
            return {"cached": 0.0}
        seconds = compile_package(path)
        try:
            _keep(path, cached)
        except OSError as error:  # the engine is complete without it
            log(f"not kept in the build cache: {error.strerror}")
    return seconds


def _keep(path: Path, cached: Path) -> None:
    temporary = cached.with_suffix(f".{os.getpid()}")
    try:
        shutil.copyfile(path, temporary)
        temporary.replace(cached)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
