"""Answers and perplexity of a model that transformers runs in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from engineroom.kit.errors import UserError
from engineroom.quality.data import Chat, Item
from engineroom.quality.data.item import render
from engineroom.quality.score import Generate


class ModelFolderError(UserError, FileNotFoundError):
    """A folder without a Hugging Face model."""


def load_model(folder: Path, device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model and the tokenizer of a Hugging Face folder.

    On a GPU the weights keep their stored dtype; on a CPU they become float32, since many CPUs have no bfloat16
    arithmetic. Raises ModelFolderError when the folder has no model.
    """
    if not (folder / "config.json").is_file():
        raise ModelFolderError(
            f"There is no model in {folder}: expected a Hugging Face folder with config.json."
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if device == "cpu" else "auto")
    model.generation_config.temperature = None  # decoding is greedy; transformers warns about an unused value
    model.to(device)  # pyright: ignore[reportArgumentType]  (transformers' wrapper of `to` hides its signature)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def local_generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int = 1024,
    batch_size: int = 16,
) -> Generate:
    """Return a Generate that decodes greedily, in batches of prompts of similar length, padded on the left."""

    def generate(chats: Sequence[Chat]) -> list[str]:
        prompts = [_prompt(tokenizer, chat) for chat in chats]
        by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        for first in range(0, len(by_length), batch_size):
            indices = by_length[first : first + batch_size]
            batch = [prompts[index] for index in indices]
            for index, text in zip(indices, _complete(model, tokenizer, batch, max_new_tokens), strict=True):
                answers[index] = text
        return answers

    return generate


def _prompt(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def _complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_new_tokens: int
) -> list[str]:
    """The greedy continuation of each prompt, at most `max_new_tokens` long and within the model's context."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to(
        model.device
    )
    prompt_length = inputs["input_ids"].shape[1]  # input_ids: int64 [prompts, prompt_length]
    max_new_tokens = min(max_new_tokens, model.config.max_position_embeddings - prompt_length)
    causal_lm: Any = model  # transformers' types do not tell that it has `generate`
    with torch.inference_mode():  # token_ids: int64 [prompts, prompt_length + new tokens]
        token_ids = causal_lm.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
    return tokenizer.batch_decode(token_ids[:, prompt_length:], skip_special_tokens=True)


def token_losses(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each token but the first; int64 [1, tokens] -> float32 [tokens - 1]."""
    with torch.inference_mode():
        logits = model(token_ids).logits[0, :-1].float()  # [tokens - 1, vocabulary]
    return torch.nn.functional.cross_entropy(logits, token_ids[0, 1:], reduction="none")


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """exp of the mean negative log-likelihood per token of all texts, without the first token of each text.

    Raises ValueError without texts.
    """
    if not texts:
        raise ValueError("perplexity needs at least one text.")
    losses: list[Tensor] = []
    for text in texts:
        token_ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        losses.append(token_losses(model, token_ids.to(model.device)))
    return math.exp(torch.cat(losses).mean().item())


def held_out_texts(items: Sequence[Item]) -> list[str]:
    """Each item's question and answer as one text with the chat markers."""
    return [render(item.messages, item.answer) for item in items]
