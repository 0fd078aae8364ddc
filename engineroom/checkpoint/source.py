"""A Hugging Face model folder, opened and checked before a byte is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineroom.checkpoint.config import ModelConfig, from_hugging_face
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.plan import sources
from engineroom.checkpoint.tensorfile import DTYPES, Stored, read_header

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HfModel:
    """`config` as in config.json; `tensors` maps each name that the model needs to its place on disk."""

    directory: Path
    config: dict[str, Any]
    model: ModelConfig
    tensors: dict[str, Stored]


def open_model(directory: str | Path) -> HfModel:
    """Open a local Hugging Face folder with *.safetensors weights, of one file or several.

    Raises CheckpointError when config.json is missing, unreadable or of another architecture; when weights are missing,
    damaged, pickled (`.bin`), outside the folder, or of another name, shape or dtype than the config implies.
    """
    directory = Path(directory)
    config = read_json(directory / "config.json", "Give --model_dir the folder that `save_pretrained` wrote.")
    model = from_hugging_face(config, directory / "config.json")
    if not isinstance(config.get("max_position_embeddings"), int):
        raise CheckpointError(
            f"{directory / 'config.json'}: max_position_embeddings missing; expected a number."
        )
    tensors = {name: tensor for file in weight_files(directory) for name, tensor in read_header(file).items()}
    return HfModel(directory, config, model, _checked(tensors, sources(model), directory))


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """A JSON object from a file; CheckpointError with `advice` when there is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. {advice}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is unreadable ({error}). {advice}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not an object. {advice}")
    return found


def weight_files(directory: Path) -> list[Path]:
    """The weight files of a folder: those of the index if there is one, else the single file."""
    index = directory / INDEX
    if index.exists():
        weights = read_json(index, "Fetch it again.").get("weight_map")
        if not isinstance(weights, dict) or not weights:
            raise CheckpointError(f"{index} has no weight_map. Fetch it again.")
        files = [directory / str(name) for name in sorted(set(weights.values()))]
    else:
        files = sorted(directory.glob("*.safetensors"))
    if not files and (pickled := sorted(directory.glob("*.bin")) + sorted(directory.glob("*.pth"))):
        raise CheckpointError(
            f"{directory} has only pickled weights ({pickled[0].name}), which may run code when loaded. Expected "
            f"*.safetensors: load the model with transformers and `save_pretrained(folder)` it."
        )
    if len(files) != 1 and not index.exists():
        raise CheckpointError(
            f"{directory} has {len(files)} *.safetensors and no {INDEX}. Expected one, or the index."
        )
    return [_inside(file, directory) for file in files]


def _inside(file: Path, directory: Path) -> Path:
    """The file itself, unless it leads out of the folder; Hugging Face's cache keeps its files in ../../blobs."""
    home = directory.resolve()
    allowed = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    real = file.resolve()
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise CheckpointError(
            f"{file} leads out of the model folder, to {real}. Copy the file into the folder."
        )
    if not real.is_file():
        raise CheckpointError(
            f"{file} is named but does not exist. Fetch the model again: a part of it is missing."
        )
    return real


def _checked(
    tensors: dict[str, Stored], needed: dict[str, tuple[int, ...]], where: Path
) -> dict[str, Stored]:
    if missing := sorted(needed.keys() - tensors.keys()):
        raise CheckpointError(
            f"{where} lacks {len(missing)} tensor(s) that its config.json implies, such as '{missing[0]}'. Is "
            f"a file missing, or does config.json belong to another model?"
        )
    for name, shape in needed.items():
        found = tensors[name]
        if found.shape != shape:
            raise CheckpointError(
                f"{found.file}: '{name}' is {list(found.shape)}, config.json implies {list(shape)}."
            )
        if found.dtype not in DTYPES:
            raise CheckpointError(
                f"{found.file}: '{name}' is {found.dtype}; expected one of {', '.join(DTYPES)}. Convert the original, "
                f"unquantised model."
            )
    return {name: tensors[name] for name in needed}
