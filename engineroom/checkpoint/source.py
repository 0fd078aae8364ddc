"""A Hugging Face model folder, opened and checked before anything is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engineroom.checkpoint.config import ModelConfig, from_hugging_face
from engineroom.checkpoint.config_values import source_dtype
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.folder import INDEX, check_folder, read_json, weight_files
from engineroom.checkpoint.plan import Shape, source_shapes
from engineroom.checkpoint.tensorfile import TORCH_DTYPES, StoredTensor, equal_bytes, read_header

__all__ = ["INDEX", "HuggingFaceModel", "open_model", "read_json"]

EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Written until 2023; transformers computes them from config.json, and so does everything that reads a checkpoint.
COMPUTED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


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


def open_model(directory: str | Path, follow_links: bool = True) -> HuggingFaceModel:
    """Open a local Hugging Face folder with weights in one or more *.safetensors files.

    Raises CheckpointError when config.json is missing, unreadable, of another architecture, or has a key that is not
    converted; when weights are missing, damaged, pickled (`.bin`) or, without `follow_links`, outside the folder; and
    when their names, shapes or dtypes are not those that config.json implies. No tensor is left unread.
    """
    directory = Path(directory)
    try:
        return _open(directory, follow_links)
    except OSError as error:
        raise CheckpointError(
            f"{directory} is unreadable ({error}). Give yourself the right to read the folder and its files."
        ) from None


def _open(directory: Path, follow_links: bool) -> HuggingFaceModel:
    check_folder(directory)
    path = directory / "config.json"
    config = read_json(path, "Give --model_dir the folder that `save_pretrained` wrote.")
    model = from_hugging_face(config, path)
    max_positions = config.get("max_position_embeddings")
    if not isinstance(max_positions, int):
        raise CheckpointError(
            f"{path}: 'max_position_embeddings' is {max_positions!r}; expected a whole number."
        )
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(directory, config, follow_links):
        tensors |= read_header(file)
    if source_dtype(config, path) is None:
        model = replace(model, dtype=_first_dtype(tensors))
    model = _tie(model, tensors)
    shapes = source_shapes(model)
    _check_tensors(tensors, shapes, directory)
    return HuggingFaceModel(directory, config, model, {name: tensors[name] for name in shapes})


def _first_dtype(tensors: dict[str, StoredTensor]) -> str:
    """The dtype of the first float tensor, which transformers takes when config.json names none."""
    dtypes = [TORCH_DTYPES[tensor.dtype] for tensor in tensors.values() if tensor.dtype in TORCH_DTYPES]
    return str(dtypes[0]).removeprefix("torch.") if dtypes else "float32"


def _tie(model: ModelConfig, tensors: dict[str, StoredTensor]) -> ModelConfig:
    """The model as transformers would tie its embedding and lm_head, whatever tie_word_embeddings promises.

    Follows `tie_weights` in modeling_utils.py: of two tensors that differ each keeps its own values; of one tensor,
    under either name, both are made. Removes from `tensors` the lm_head that is not needed.
    """
    if not model.tie_word_embeddings or LM_HEAD not in tensors:
        return model
    if EMBEDDING not in tensors:
        tensors[EMBEDDING] = tensors.pop(LM_HEAD)
        return model
    if equal_bytes(tensors[EMBEDDING], tensors[LM_HEAD]):
        del tensors[LM_HEAD]
        return model
    return replace(model, tie_word_embeddings=False)


def _check_tensors(tensors: dict[str, StoredTensor], shapes: dict[str, Shape], directory: Path) -> None:
    missing = sorted(shapes.keys() - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} tensor(s) that its config.json implies, such as '{missing[0]}'. Is "
            f"a file missing, or does config.json belong to another model?"
        )
    unread = sorted(name for name in tensors.keys() - shapes.keys() if not COMPUTED.fullmatch(name))
    if unread:
        raise CheckpointError(
            f"{tensors[unread[0]].file}: {len(unread)} tensor(s), such as '{unread[0]}', have no place in the model "
            f"that config.json describes, so they would be lost. Does config.json belong to another model, or does it "
            f"miss a key such as attention_bias?"
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
