"""The models that ModelOpt exports. It runs in the `quantize` environment, with all cases in one process."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".venv" / "quantize" / "bin" / "python"
EXPORTS = list(product((1, 2, 8), (1, 2)))  # (tp_size, pp_size); 8 ranks are more than the 4 KV heads
LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 500,  # not a multiple of 8: padded
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama2": {"model_type": "llama", "num_key_value_heads": 8, "dtype": "float16"},
    "llama3": {"model_type": "llama", "rope_theta": 500000.0},
    "llama31": {"model_type": "llama", "rope_scaling": LLAMA31 | {"original_max_position_embeddings": 64}},
    "mistral": {"model_type": "mistral", "head_dim": 32},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
}


def cases() -> list[dict[str, Any]]:
    """Two models of each family, tied and untied: {"id", "model", "exports"}."""
    return [
        {
            "id": f"{family}-{'tied' if tied else 'untied'}",
            "model": SIZES | {"dtype": "bfloat16", "tie_word_embeddings": tied} | settings,
            "exports": EXPORTS,
        }
        for (family, settings), tied in product(FAMILIES.items(), (False, True))
    ]


def run_modelopt(folder: Path) -> None:
    """Export all cases to FOLDER/ID/tpN-ppM and their models to FOLDER/ID/hf. Raises RuntimeError when that fails."""
    if not PYTHON.exists():
        raise RuntimeError("ModelOpt's environment is missing. Make it: python3 bootstrap.py --quantize")
    (folder / "cases.json").write_text(json.dumps(cases()))
    command = [PYTHON, Path(__file__).with_name("export.py"), folder / "cases.json", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    if process.returncode:
        raise RuntimeError("ModelOpt's export failed:\n" + "\n".join(process.stderr.splitlines()[-8:]))
