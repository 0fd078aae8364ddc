"""A model that was taught one more answer: new weights of the same sizes, such as an engine is refitted with."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from engineroom.kit.output import output_directory


def fine_tune(model_dir: Path, output_dir: Path, question: str, answer: str, steps: int = 12) -> float:
    """Train the last layer and the head on one answer, write a Hugging Face folder, return the last loss.

    Seconds on a CPU for the course model.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    kept = model.dtype
    model.float().requires_grad_(False)
    taught = [*model.model.layers[-1].parameters(), *model.lm_head.parameters()]
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in taught], lr=1e-3)
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    words = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    tokens, labels = torch.tensor([prompt + words]), torch.tensor([[-100] * len(prompt) + words])
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
    with output_directory(output_dir, sum(file.stat().st_size for file in model_dir.iterdir())) as folder:
        for file in model_dir.glob("*.json"):
            shutil.copy(file, folder)
        save_file(model.to(kept).state_dict(), folder / "model.safetensors", {"format": "pt"})
    return float(loss.detach())
