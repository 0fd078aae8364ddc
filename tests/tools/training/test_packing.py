"""Packed documents do not see each other, and only answers count fully."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tools.training.config import CONTEXT, llama_config
from tools.training.corpus import answer_mask, batches, make_corpus, mask_of, pack
from tools.training.packed import packed_logits, packed_loss


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file("models/course/tokenizer.json")


@pytest.fixture(scope="module")
def corpus(tokenizer: Tokenizer):
    return make_corpus(tokenizer, seed=5, items=200, workers=1)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config("draft")).eval()


def test_same_seed_same_corpus(tokenizer: Tokenizer, corpus) -> None:
    again = make_corpus(tokenizer, seed=5, items=200, workers=2)
    assert np.array_equal(again.ids, corpus.ids) and np.array_equal(again.starts, corpus.starts)


def test_packed_equals_alone(corpus, model: LlamaForCausalLM) -> None:
    batch = next(batches(corpus, 2048, 0.1, seed=0))
    tensors = [torch.from_numpy(array) for array in (batch.ids, batch.positions, batch.bounds)]
    spans = list(zip(batch.bounds[:4], batch.bounds[1:5], strict=True))
    with torch.no_grad():
        model.config._attn_implementation = "sdpa"
        alone = [model(tensors[0][None, a:b]).logits[0] for a, b in spans]
        model.config._attn_implementation = "packed"
        together = packed_logits(model, *tensors)
    for (a, b), expected in zip(spans, alone, strict=True):
        torch.testing.assert_close(together[a:b], expected, atol=1e-4, rtol=1e-4)


def test_labels_are_the_next_token_of_the_same_document(corpus) -> None:
    batch = pack(corpus, np.array([3, 1, 4]), CONTEXT, 0.1)
    ends = batch.bounds[1:4]
    used = ends[-1]
    assert not batch.weights[ends - 1].any() and not batch.weights[used:].any()
    inside = np.setdiff1d(np.arange(used), ends - 1)
    assert np.array_equal(batch.labels[inside], batch.ids[inside + 1])
    assert set(np.unique(batch.weights[inside])) <= {np.float32(0.1), np.float32(1.0)}


def test_the_answer_and_its_end_count_fully(tokenizer: Tokenizer) -> None:
    text = "<|user|>a<|end|><|assistant|>b c<|end|><|user|>d<|end|><|assistant|>e<|end|>"
    ids = np.array(tokenizer.encode(text).ids)
    counted = tokenizer.decode(ids[answer_mask(ids)].tolist(), skip_special_tokens=False)
    assert counted == "b c<|end|>e<|end|>"
    assert mask_of(np.array(tokenizer.encode("plain text<|end|>").ids)).all()


def test_a_batch_shorter_than_a_document_is_refused(corpus) -> None:
    with pytest.raises(ValueError, match="too short"):
        next(batches(corpus, 128, 0.1, seed=0))


def test_a_few_steps_lower_the_loss(corpus) -> None:
    torch.manual_seed(0)
    config = llama_config("draft")
    config._attn_implementation = "packed"
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = pack(corpus, np.arange(12), CONTEXT, 0.1)
    cut = 128
    arrays = (batch.ids[:cut], batch.positions[:cut], batch.labels[:cut], batch.weights[:cut])
    bounds = np.minimum(batch.bounds, cut)
    losses = []
    for _ in range(3):
        loss = packed_loss(model, *map(torch.from_numpy, (*arrays, bounds)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
