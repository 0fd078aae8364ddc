"""Run by the `quantize` environment: tiny random models, exported by NVIDIA's ModelOpt as TensorRT-LLM checkpoints.

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

import torch

warnings.filterwarnings("ignore")


def make(config: dict) -> torch.nn.Module:
    """A model with random weights; norms and biases too, so that a wrong one shows."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    wanted = dict(config)
    dtype = getattr(torch, wanted.pop("dtype"))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**wanted), torch_dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.tie_weights()
    return model


def export(model: torch.nn.Module, tp: int, pp: int, folder: Path) -> None:
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    export_tensorrt_llm_checkpoint(
        model,
        "llama",
        dtype=model.dtype,
        export_dir=folder,
        inference_tensor_parallel=tp,
        inference_pipeline_parallel=pp,
    )


def main() -> None:
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for case in cases:
        home = folder / case["id"]
        model = make(case["model"])
        model.save_pretrained(home / "hf")
        for tp, pp in case["exports"]:
            with contextlib.redirect_stdout(io.StringIO()):
                export(model, tp, pp, home / f"tp{tp}-pp{pp}")
        print(case["id"], flush=True)


if __name__ == "__main__":
    main()
