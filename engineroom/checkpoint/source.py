"""A Hugging Face model folder, opened and checked before anything is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineroom.checkpoint.config import ModelConfig, from_hugging_face
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.plan import Shape, source_shapes
from engineroom.checkpoint.tensorfile import TORCH_DTYPES, StoredTensor, read_header

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HuggingFaceModel:
    """`config` is config.json as it stands; `tensors` has each tensor that the model needs, by its name."""

    directory: Path
    config: dict[str, Any]
    model: ModelConfig
    tensors: dict[str, StoredTensor]

    @property
    def nbytes(self) -> int:
        """Bytes that a conversion reads."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def open_model(directory: str | Path) -> HuggingFaceModel:
    """Open a local Hugging Face folder with weights in one or more *.safetensors files.

    Raises CheckpointError when config.json is missing, unreadable or of another architecture; when weights are missing,
    damaged, pickled (`.bin`) or outside the folder; or when their names, shapes or dtypes are not those that
    config.json implies.
    """
    directory = Path(directory)
    path = directory / "config.json"
    config = read_json(path, "Give --model_dir the folder that `save_pretrained` wrote.")
    model = from_hugging_face(config, path)
    max_positions = config.get("max_position_embeddings")
    if not isinstance(max_positions, int):
        raise CheckpointError(
            f"{path}: 'max_position_embeddings' is {max_positions!r}; expected a whole number."
        )
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(directory):
        tensors |= read_header(file)
    shapes = source_shapes(model)
    _check_tensors(tensors, shapes, directory)
    return HuggingFaceModel(directory, config, model, {name: tensors[name] for name in shapes})


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file. Raises CheckpointError when there is none; its message ends with `advice`."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. {advice}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is unreadable ({error}). {advice}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object. {advice}")
    return value


def weight_files(directory: Path) -> list[Path]:
    """The weight files of a folder: those that the index names or, without an index, the only *.safetensors file.

    Raises CheckpointError when there are none, when there are several without an index, and for a file that is missing
    or outside the folder.
    """
    index = directory / INDEX
    if index.exists():
        weight_map = read_json(index, "Fetch it again.").get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map. Fetch it again.")
        names = sorted({str(name) for name in weight_map.values()})
        return [_resolve(directory / name, directory) for name in names]
    files = sorted(directory.glob("*.safetensors"))
    if len(files) == 1:
        return [_resolve(files[0], directory)]
    pickled = sorted([*directory.glob("*.bin"), *directory.glob("*.pth")])
    if pickled and not files:
        raise CheckpointError(
            f"{directory} has only pickled weights ({pickled[0].name}), which may run code when loaded. Expected "
            f"*.safetensors: load the model with transformers and `save_pretrained(folder)` it."
        )
    raise CheckpointError(
        f"{directory} has {len(files)} *.safetensors and no {INDEX}. Expected one file, or the index."
    )


def _resolve(file: Path, directory: Path) -> Path:
    """The file that `file` links to. It must be in the folder or in its Hugging Face cache, at ../../blobs."""
    home = directory.resolve()
    allowed = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    resolved = file.resolve()
    if not any(resolved.is_relative_to(folder) for folder in allowed):
        raise CheckpointError(
            f"{file} is outside the model folder: it leads to {resolved}. Copy the file into the folder."
        )
    if not resolved.is_file():
        raise CheckpointError(
            f"{file} does not exist, although the model names it. Fetch the model again: a part of it is missing."
        )
    return resolved


def _check_tensors(tensors: dict[str, StoredTensor], shapes: dict[str, Shape], directory: Path) -> None:
    missing = sorted(shapes.keys() - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} tensor(s) that its config.json implies, such as '{missing[0]}'. Is "
            f"a file missing, or does config.json belong to another model?"
        )
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.file}: '{name}' is {list(tensor.shape)}; config.json implies {list(shape)}."
            )
        if tensor.dtype not in TORCH_DTYPES:
            raise CheckpointError(
                f"{tensor.file}: '{name}' is {tensor.dtype}; expected one of {', '.join(TORCH_DTYPES)}. Convert the "
                f"original, unquantised model."
            )
