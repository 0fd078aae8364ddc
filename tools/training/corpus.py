"""Training text as token ids, made by several processes, and batches packed without padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from engineroom.quality.data.item import END, SPECIAL_TOKENS, render
from engineroom.quality.data.mix import document, training_items
from tools.training.config import CONTEXT, END_ID, PAD_ID

ASSISTANT_ID = SPECIAL_TOKENS.index("<|assistant|>")
FIRST_ROLE_ID = SPECIAL_TOKENS.index("<|system|>")
DOCUMENT_SHARE = 0.02
CHUNK = 4096
SHORTEST = 32  # mean tokens of a document that every batch exceeds; sets the room for bounds


@dataclass(frozen=True)
class Corpus:
    """Documents end to end: `ids` uint16 [tokens], `answer` bool [tokens] (the token belongs to an
    answer), `starts` int64 [documents + 1] (offsets)."""

    ids: np.ndarray
    answer: np.ndarray
    starts: np.ndarray


def answer_mask(ids: np.ndarray) -> np.ndarray:
    """True for tokens after an assistant marker up to and including the end token; ids [tokens]."""
    marker = (ids >= FIRST_ROLE_ID) & (ids <= ASSISTANT_ID)
    last = np.maximum.accumulate(np.where(marker, np.arange(len(ids)), 0))
    return (ids[last] == ASSISTANT_ID) & ~marker


def part(tokenizer_json: str, seed: int, items: int) -> list[np.ndarray]:
    """Token ids (uint16) of `items` training documents; runs in a worker process."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    stream, rng = training_items(seed), random.Random(f"documents/{seed}")
    documents: list[np.ndarray] = []
    while len(documents) < items:
        chunk = list(islice(stream, min(CHUNK, items - len(documents))))
        texts = [render(item.messages, item.answer) for item in chunk]
        texts = [document(rng) + END if rng.random() < DOCUMENT_SHARE else text for text in texts]
        ids = (encoding.ids for encoding in tokenizer.encode_batch_fast(texts))
        documents += [np.array(row, dtype=np.uint16) for row in ids if len(row) <= CONTEXT]
    return documents


def mask_of(document: np.ndarray) -> np.ndarray:
    """Which tokens count fully: the answers of a chat, everything of a plain document."""
    chat = FIRST_ROLE_ID <= document[0] <= ASSISTANT_ID
    return answer_mask(document) if chat else np.ones(len(document), dtype=bool)


def make_corpus(tokenizer: Tokenizer, seed: int, items: int, workers: int) -> Corpus:
    """`items` training documents; the same arguments give the same corpus, whatever the machine."""
    parts = 64
    sizes = [items // parts + (i < items % parts) for i in range(parts)]
    seeds = [seed * 1000 + i + 1 for i in range(parts)]
    with ProcessPoolExecutor(workers) as pool:
        made = pool.map(part, [tokenizer.to_str()] * parts, seeds, sizes)
        documents = [document for group in made for document in group]
    starts = np.concatenate([[0], np.cumsum([len(document) for document in documents])])
    return Corpus(np.concatenate(documents), np.concatenate([mask_of(d) for d in documents]), starts)


@dataclass(frozen=True)
class Batch:
    """One packed row. `ids`, `positions`, `labels` int64 [tokens]; `weights` float32 [tokens], 0 where
    nothing is predicted; `bounds` int32 [most documents + 1], document offsets, padded with `tokens`."""

    ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    bounds: np.ndarray


def pack(corpus: Corpus, order: np.ndarray, tokens: int, prompt_weight: float) -> Batch:
    """Lay the documents `order` end to end in a row of `tokens`; the rest of the row is padding."""
    lengths = corpus.starts[order + 1] - corpus.starts[order]
    ends = np.cumsum(lengths)
    if len(ends) > tokens // SHORTEST:
        raise ValueError(
            f"{len(ends)} documents in {tokens} tokens; expected {SHORTEST} tokens each on average"
        )
    used = int(ends[-1])
    positions = np.arange(used) - np.repeat(ends - lengths, lengths)
    source = np.repeat(corpus.starts[order], lengths) + positions
    ids = np.full(tokens, PAD_ID, dtype=np.int64)
    ids[:used] = corpus.ids[source]
    target = np.where(corpus.answer[source], 1.0, prompt_weight).astype(np.float32)
    weights = np.zeros(tokens, dtype=np.float32)
    weights[: used - 1] = target[1:]
    weights[ends - 1] = 0.0
    bounds = np.full(tokens // SHORTEST + 1, tokens, dtype=np.int32)
    bounds[: len(ends) + 1] = np.concatenate([[0], ends])
    padded = np.concatenate([positions, np.arange(tokens - used) % CONTEXT])
    return Batch(ids, padded, np.append(ids[1:], END_ID), weights, bounds)


def batches(corpus: Corpus, tokens: int, prompt_weight: float, seed: int) -> Iterator[Batch]:
    """Endless shuffled passes over the corpus, whole documents only, at most `tokens` a batch.

    Raises ValueError when a batch is too short for the longest document.
    """
    if tokens < CONTEXT:
        raise ValueError(f"a batch of {tokens} tokens is too short; it must hold a document of {CONTEXT}")
    rng = np.random.default_rng(seed)
    lengths = np.diff(corpus.starts)
    while True:
        order = rng.permutation(len(lengths))
        total = np.cumsum(lengths[order])
        first = 0
        while first < len(order):
            before = total[first - 1] if first else 0
            last = int(np.searchsorted(total, before + tokens, side="right"))
            yield pack(corpus, order[first:last], tokens, prompt_weight)
            first = last
