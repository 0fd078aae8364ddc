"""Train the byte-level BPE tokenizer: 4,096 tokens, a token for each digit; it can encode any text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from engineroom.quality.data.item import SPECIAL_TOKENS
from engineroom.quality.data.mix import document, training_items
from tools.training.config import VOCAB_SIZE

NUM_ITEMS = 60_000


def training_texts(seed: int) -> Iterator[str]:
    """Messages and answers of training items, and plain glossary lines, as they are and in upper case."""
    for item in islice(training_items(seed), NUM_ITEMS):
        yield from (message["content"] for message in item.messages)
        yield item.answer
    rng = random.Random(seed)
    for _ in range(NUM_ITEMS // 20):
        text = document(rng)
        yield text
        yield text.upper()


def train_tokenizer(seed: int) -> Tokenizer:
    """Train on generated text. Raises ValueError when the text is too short for the vocabulary."""
    tokenizer = Tokenizer(BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(seed), trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(
            f"expected {VOCAB_SIZE} tokens, got {tokenizer.get_vocab_size()}; the text is too short"
        )
    return tokenizer
