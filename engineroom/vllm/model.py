"""Which model is served, and in which precision."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.machine import Machine

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = ("course", "draft")
BF16_GPU = 8.0  # compute capability of Ampere, the first with bfloat16
BF16_CPU = {"avx512_bf16", "amx_bf16"}


def locate(model: str) -> str:
    """What `vllm serve` is given for ``model``: a folder, or the id of a model on the Hugging Face hub.

    "course" and "draft" are the two models of this repository. Raises FileNotFoundError for a path that is no
    model folder.
    """
    folder = MODELS / model if model in SHIPPED else Path(model).expanduser()
    if (folder / "config.json").is_file():
        return str(folder)
    if model in SHIPPED or folder.exists() or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise FileNotFoundError(
            f"{model!r} is no model: {folder}/config.json does not exist. Give 'course', a folder with a Hugging "
            "Face model, or an id such as 'Qwen/Qwen2.5-7B-Instruct'."
        )
    return model


def local(model: str) -> Path:
    """The folder of ``model``; an id of the Hugging Face hub is downloaded first, without pickled weights.

    Raises FileNotFoundError as `locate`, and what huggingface_hub raises for a model that is gated or unknown.
    """
    found = locate(model)
    if Path(found).is_dir():
        return Path(found)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(found, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))


def dtype(machine: Machine) -> str:
    """bfloat16 where the processor computes in it, else float32: emulated bfloat16 is slower than float32."""
    if machine.gpus:
        return "bfloat16" if float(machine.gpus[0].compute_capability) >= BF16_GPU else "float16"
    return "bfloat16" if BF16_CPU & set(machine.isa) else "float32"
