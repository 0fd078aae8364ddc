"""Which files of a Hugging Face folder hold the weights: the order of transformers, and messages for other folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.tensorfile import GIT_LFS_POINTER, git_lfs_error

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError when there is none; its message ends with `advice`."""
    try:
        raw = path.read_bytes()
        value = None if raw.startswith(GIT_LFS_POINTER) else json.loads(raw.decode())
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. {advice}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is unreadable ({error}). {advice}") from None
    if raw.startswith(GIT_LFS_POINTER):
        raise git_lfs_error(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object. {advice}")
    return value


def check_folder(directory: Path) -> None:
    """Raise CheckpointError for what is not a folder with a config.json, with a message for each common case."""
    if not directory.is_dir():
        if directory.is_file():
            raise CheckpointError(
                f"{directory} is a file{_gguf_advice([directory])}. Expected the folder with config.json and "
                f"*.safetensors."
            )
        advice = "Give --model_dir the folder that `save_pretrained` wrote."
        if HUB_ID.fullmatch(str(directory)):
            advice += (
                f" If this is the id of a model on the Hugging Face Hub, fetch it first: `hf download {directory} "
                f"--local-dir FOLDER`, then give FOLDER."
            )
        raise CheckpointError(f"{directory} does not exist: there is no config.json to read. {advice}")
    if (directory / "config.json").exists():
        return
    if (directory / ADAPTER_CONFIG).exists():
        raise _adapter_error(directory)
    gguf = sorted(directory.glob("*.gguf"))
    if gguf:
        raise CheckpointError(f"{directory} holds {gguf[0].name}{_gguf_advice(gguf)}.")
    if (directory / "params.json").exists():
        raise CheckpointError(
            f"{directory} is in the original format of Meta or Mistral (params.json). Expected config.json and "
            f"{SINGLE_FILE}: fetch the model's Hugging Face format."
        )


def weight_files(directory: Path, config: dict[str, Any], follow_links: bool = True) -> list[Path]:
    """The weight files of a folder, in the order in which transformers would load them.

    `transformers_weights` of config.json names the file or the index, else model.safetensors counts, else the index,
    else the only *.safetensors file. Raises CheckpointError when there are none, when there are several without an
    index, and for a file that is missing, that is named outside the folder or, without `follow_links`, that a link
    leads outside of it.
    """
    name = config.get("transformers_weights")
    if name is not None:
        if not isinstance(name, str) or not name.endswith((".safetensors", ".safetensors.index.json")):
            raise CheckpointError(
                f"{directory / 'config.json'}: 'transformers_weights' is {name!r}; expected the name of a "
                f".safetensors file or of its index."
            )
        names = _indexed_files(directory / name) if name.endswith(".json") else [name]
    elif (directory / SINGLE_FILE).is_file():
        names = [SINGLE_FILE]
    elif (directory / INDEX).is_file():
        names = _indexed_files(directory / INDEX)
    else:
        names = [_only_file(directory)]
    return [_resolve(directory / name, directory, follow_links) for name in names]


def _indexed_files(index: Path) -> list[str]:
    weight_map = read_json(index, "Fetch it again.").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map. Fetch it again.")
    return sorted({str(name) for name in weight_map.values()})


def _only_file(directory: Path) -> str:
    """The only *.safetensors file of a folder that has neither model.safetensors nor an index."""
    files = sorted(directory.glob("*.safetensors"))
    broken = [file for file in files if file.is_symlink() and not file.exists()]
    if broken:
        raise CheckpointError(
            f"{broken[0]} links to {broken[0].readlink()}, which does not exist. Fetch the model again, or restore the "
            f"file that the link names."
        )
    adapters = [file for file in files if file.name.startswith("adapter_model")]
    if (files and files == adapters) or (not files and (directory / ADAPTER_CONFIG).exists()):
        raise _adapter_error(directory)
    models = [file for file in files if file not in adapters]
    if models and all(file.name.startswith("consolidated") for file in models):
        raise CheckpointError(
            f"{directory} has only {models[0].name}, Mistral's own format. Expected {SINGLE_FILE} or {INDEX} with its "
            f"files: fetch those of the same model."
        )
    if len(files) == 1:
        return files[0].name
    gguf = sorted(directory.glob("*.gguf"))
    if gguf and not files:
        raise CheckpointError(f"{directory} holds {gguf[0].name}{_gguf_advice(gguf)}.")
    pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pth"), *directory.glob("*.pt")])
    if pickled and not files:
        raise CheckpointError(
            f"{directory} has only pickled weights ({pickled[0].name}), which may run code when loaded. Expected "
            f"*.safetensors: load the model with transformers and `save_pretrained(folder)` it."
        )
    raise CheckpointError(
        f"{directory} has {len(files)} *.safetensors and no {INDEX}. Expected {SINGLE_FILE}, one file, or the index."
    )


def _adapter_error(directory: Path) -> CheckpointError:
    base = "its base model"
    path = directory / ADAPTER_CONFIG
    if path.exists():
        base = str(read_json(path, "Fetch it again.").get("base_model_name_or_path") or base)
    return CheckpointError(
        f"{directory} holds a LoRA adapter, not a whole model. Expected merged weights: load {base} and the adapter "
        f"with peft, call `merge_and_unload()` and `save_pretrained(folder)`, and convert that folder."
    )


def _gguf_advice(files: list[Path]) -> str:
    if not files[0].name.endswith(".gguf"):
        return ""
    return (
        ", llama.cpp's GGUF format, which is mostly quantised and is not converted; fetch the original model in "
        "Hugging Face's format"
    )


def _resolve(file: Path, directory: Path, follow_links: bool) -> Path:
    """The file that `file` names; it is in the folder, or a link in the folder leads to it."""
    if not file.is_relative_to(directory) or ".." in file.relative_to(directory).parts:
        raise CheckpointError(f"{file} is outside the model folder. Copy the file into the folder.")
    home = directory.resolve()
    allowed = (
        [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    )  # the hub's own cache
    try:
        resolved = file.resolve(strict=True)
    except (OSError, RuntimeError):
        target = f" (a link to {file.readlink()})" if file.is_symlink() else ""
        raise CheckpointError(
            f"{file}{target} does not exist, although the model names it. Fetch the model again: a part of it is "
            f"missing."
        ) from None
    if not resolved.is_file():
        raise CheckpointError(f"{file} is not a regular file. Expected a *.safetensors file.")
    if not follow_links and not any(resolved.is_relative_to(folder) for folder in allowed):
        raise CheckpointError(
            f"{file} is outside the model folder: it leads to {resolved}. Copy the file into the folder, or "
            f"use --follow_links."
        )
    return resolved
