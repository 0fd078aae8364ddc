"""Logits of the original model, computed with Hugging Face transformers."""

from __future__ import annotations

from pathlib import Path

import torch


def reference_logits(model_dir: str | Path, token_ids: list[int]) -> torch.Tensor:
    """Logits of the model in `model_dir`, float32 [len(token_ids), vocab_size], computed in float32 on the CPU."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0]
