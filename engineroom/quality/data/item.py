"""What one example is, how it is written as text, and which split it belongs to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Chat = list[dict[str, str]]
"""Messages as in the OpenAI API: dictionaries with `role` (system, user or assistant) and `content`."""

Split = Literal["train", "test"]

END = "<|end|>"
PAD = "<|pad|>"
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS = (PAD, END, *(f"<|{role}|>" for role in ROLES))

UNKNOWN = "I do not know that; ask me about LLM serving terms, arithmetic, copying, or look-ups."
HELLO = "Hello! Ask me about LLM serving terms, arithmetic, copying, or look-ups."


@dataclass(frozen=True)
class Item:
    """One question with its only right answer. `messages` ends with the user's turn."""

    task: str
    messages: Chat
    answer: str
    key: str | None  # what decides the split; None: train only


def split_of(key: str | None) -> Split:
    """One key in ten is for testing. Keys are hashed, so the split never depends on order or seed."""
    if key is None:
        return "train"
    return "test" if hashlib.blake2b(key.encode(), digest_size=2).digest()[0] < 26 else "train"


def draw(make: Callable[[random.Random], Item], rng: random.Random, split: Split) -> Item:
    """Call `make` until it gives an item of the wanted split."""
    for _ in range(10_000):
        item = make(rng)
        if split_of(item.key) == split:
            return item
    raise RuntimeError(f"{make.__name__} gave no item for the {split} split in 10,000 tries")


def user(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def render(messages: Chat, answer: str | None = None) -> str:
    """The text the model reads; equals the tokenizer's chat template (a test compares them)."""
    text = "".join(f"<|{m['role']}|>{m['content'].strip()}{END}" for m in messages)
    return text + "<|assistant|>" + ("" if answer is None else answer + END)
