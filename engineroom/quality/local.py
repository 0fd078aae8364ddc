"""Answers and perplexity by transformers, in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from engineroom.quality.data import Chat, Item
from engineroom.quality.data.item import render
from engineroom.quality.score import Generate


def load(folder: Path, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer. The weights keep their stored values; on a CPU they are computed with in
    float32, since many CPUs have no bfloat16 arithmetic. Raises FileNotFoundError when there is no model.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no model in {folder}: expected a Hugging Face folder with config.json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if device == "cpu" else "auto")
    model.generation_config.temperature = None  # greedy anyway; transformers warns about a value
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def local_generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int = 1024,
    batch_size: int = 16,
) -> Generate:
    """Greedy answers in batches of similar prompt length (left padding)."""

    def generate(chats: Sequence[Chat]) -> list[str]:
        prompts = [
            tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            inputs = tokenizer(
                [prompts[i] for i in rows], return_tensors="pt", padding=True, return_token_type_ids=False
            )
            inputs = inputs.to(model.device)
            room = model.config.max_position_embeddings - inputs["input_ids"].shape[1]
            with torch.inference_mode():
                out = model.generate(**inputs, do_sample=False, max_new_tokens=min(max_new_tokens, room))
            texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(rows, texts, strict=True):
                answers[i] = text
        return answers

    return generate


def token_losses(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each token but the first; ids int64 [1, tokens] -> [tokens - 1]."""
    with torch.inference_mode():
        logits = model(ids).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """exp of the mean negative log-likelihood per token over all texts, each text's first token left out."""
    if not texts:
        raise ValueError("perplexity needs at least one text")
    rows = [tokenizer(t, return_tensors="pt", add_special_tokens=False)["input_ids"] for t in texts]
    losses = torch.cat([token_losses(model, ids.to(model.device)) for ids in rows])
    return math.exp(losses.mean().item())


def held_out_texts(items: Sequence[Item]) -> list[str]:
    """Questions with their answers, written with the chat markers."""
    return [render(item.messages, item.answer) for item in items]
