"""Export tiny random models with NVIDIA's ModelOpt as TensorRT-LLM checkpoints; runs in the `quantize` environment.

Usage: export.py CASES.json FOLDER. CASES is a list of {"id", "model": {...config}, "exports": [[tp, pp], ...]}; writes
FOLDER/ID/hf and FOLDER/ID/tpN-ppM.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


def random_model(config: dict[str, Any]) -> PreTrainedModel:
    """A model with random weights, norms and biases too, so that a mistake in any of them shows."""
    torch.manual_seed(7)
    settings = {name: value for name, value in config.items() if name != "dtype"}
    dtype = getattr(torch, config["dtype"])
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), torch_dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.tie_weights()
    return model


def export(model: PreTrainedModel, tp_size: int, pp_size: int, folder: Path) -> None:
    from modelopt.torch.export import export_tensorrt_llm_checkpoint  # its import warns

    with contextlib.redirect_stdout(io.StringIO()):
        export_tensorrt_llm_checkpoint(
            model,
            "llama",
            dtype=model.dtype,
            export_dir=folder,
            inference_tensor_parallel=tp_size,
            inference_pipeline_parallel=pp_size,
        )


def main() -> None:
    warnings.filterwarnings("ignore")
    cases = json.loads(Path(sys.argv[1]).read_text())
    for case in cases:
        folder = Path(sys.argv[2]) / case["id"]
        model = random_model(case["model"])
        model.save_pretrained(folder / "hf")
        for tp_size, pp_size in case["exports"]:
            export(model, tp_size, pp_size, folder / f"tp{tp_size}-pp{pp_size}")
        print(case["id"], flush=True)


if __name__ == "__main__":
    main()
