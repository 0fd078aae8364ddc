"""Which model is served, and in which precision."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.errors import UserError
from engineroom.kit.machine import Machine
from engineroom.kit.record import checkout

COURSE_MODELS = ("course", "draft")
BF16_COMPUTE_CAPABILITY = 8.0  # of Ampere, the first GPU architecture with bfloat16
BF16_CPU = {"avx512_bf16", "amx_bf16"}
WEIGHTS = ["*.json", "*.safetensors", "*.txt", "*.model"]  # without pickled weights, which can run code
ADVICE = "Give a folder with a Hugging Face model, or an id such as 'Qwen/Qwen2.5-7B-Instruct'."


class ModelNotFound(UserError, FileNotFoundError):
    """A name that is neither a model folder nor a possible id of the Hugging Face hub."""


def locate(model: str) -> str:
    """What `vllm serve` takes for ``model``: a folder, or an id of the Hugging Face hub.

    "course" and "draft" are the two models in the checkout of the course; an installed library does not have them.
    Raises ModelNotFound for a path that is not a model folder.
    """
    if model in COURSE_MODELS:
        return str(_course_model(model))
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelNotFound(f"{model!r} is not a model: {folder}/config.json does not exist. {ADVICE}")
    return model


def _course_model(name: str) -> Path:
    root = checkout()
    if root is None:
        raise ModelNotFound(
            f"The model {name!r} comes with a checkout of the course, not with the library. {ADVICE}"
        )
    folder = root / "models" / name
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"{folder}/config.json does not exist. Take the folder models/{name} from git. {ADVICE}"
        )
    return folder


def local_folder(model: str) -> Path:
    """The folder of ``model``; a model of the Hugging Face hub is downloaded first, without pickled weights.

    Raises ModelNotFound as `locate` does, and what huggingface_hub raises for a gated or unknown model.
    """
    name = locate(model)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=WEIGHTS))


def dtype(machine: Machine) -> str:
    """bfloat16 where the processor supports it; else float16 on a GPU and float32 on a CPU.

    On a CPU, emulated bfloat16 is slower than float32.
    """
    if machine.gpus:
        capability = float(machine.gpus[0].compute_capability)
        return "bfloat16" if capability >= BF16_COMPUTE_CAPABILITY else "float16"
    return "bfloat16" if BF16_CPU & set(machine.isa) else "float32"
