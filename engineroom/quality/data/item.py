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
    """One question with its only correct answer. `messages` ends with the user's turn."""

    task: str
    messages: Chat
    answer: str
    key: str | None  # decides the split; None means training only


ItemGenerator = Callable[[random.Random], Item]


def split_of(key: str | None) -> Split:
    """The split of a key; one key in ten is for testing. Keys are hashed, so order and seed have no influence."""
    if key is None:
        return "train"
    return "test" if hashlib.blake2b(key.encode(), digest_size=2).digest()[0] < 26 else "train"


def draw(generate: ItemGenerator, rng: random.Random, split: Split) -> Item:
    """Call `generate` until it returns an item of this split. Raises RuntimeError after 10,000 calls."""
    for _ in range(10_000):
        item = generate(rng)
        if split_of(item.key) == split:
            return item
    raise RuntimeError(f"{generate.__name__} returned no item of the {split} split in 10,000 calls")


def user(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def render(messages: Chat, answer: str | None = None) -> str:
    """The text that the model reads. It equals the tokenizer's chat template; a test compares the two."""
    turns = [f"<|{message['role']}|>{message['content'].strip()}{END}" for message in messages]
    return "".join(turns) + "<|assistant|>" + ("" if answer is None else answer + END)
