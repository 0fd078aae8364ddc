"""Fine-tune a model on one more answer: new weights of the same sizes, with which an engine can be refitted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from engineroom.kit.output import output_directory

IGNORED_LABEL = -100  # the loss leaves these tokens out
LEARNING_RATE = 1e-3


def fine_tune(model_dir: Path, output_dir: Path, question: str, answer: str, steps: int = 12) -> float:
    """Train the last layer and the head on one answer, write a Hugging Face folder and return the last loss.

    It takes seconds on a CPU for the course model. Raises OutputError when `output_dir` cannot be written.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype="auto")
    dtype = model.dtype
    model.float()
    loss = _train(model, *_training_example(model_dir, question, answer), steps)
    model.to(dtype)
    size = sum(file.stat().st_size for file in model_dir.iterdir())
    with output_directory(output_dir, size) as folder:
        for file in model_dir.glob("*.json"):
            shutil.copy(file, folder)
        save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return loss


def _training_example(model_dir: Path, question: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64 [1, num_tokens] each; the question's tokens have no label."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    chat = [{"role": "user", "content": question}]
    prompt_ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    answer_ids = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    labels = [IGNORED_LABEL] * len(prompt_ids) + answer_ids
    return torch.tensor([prompt_ids + answer_ids]), torch.tensor([labels])


def _train(model: Any, token_ids: torch.Tensor, labels: torch.Tensor, steps: int) -> float:
    model.requires_grad_(False)
    trained = [*model.model.layers[-1].parameters(), *model.lm_head.parameters()]
    for weight in trained:
        weight.requires_grad_()
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    loss = torch.tensor(torch.inf)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(token_ids, labels=labels).loss
        loss.backward()
        optimizer.step()
    return float(loss.detach())
