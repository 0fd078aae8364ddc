"""Packed documents do not attend to each other, and only answers count fully."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from tools.training.config import CONTEXT, llama_config
from tools.training.corpus import Corpus, answer_mask, batches, full_weight_mask, make_corpus, pack
from tools.training.packed import packed_logits, packed_loss


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file("models/course/tokenizer.json")


@pytest.fixture(scope="module")
def corpus(tokenizer: Tokenizer) -> Corpus:
    return make_corpus(tokenizer, seed=5, items=200, workers=1)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(llama_config("draft")).eval()


def test_same_seed_same_corpus(tokenizer: Tokenizer, corpus: Corpus) -> None:
    repeated = make_corpus(tokenizer, seed=5, items=200, workers=2)
    assert np.array_equal(repeated.ids, corpus.ids) and np.array_equal(repeated.starts, corpus.starts)


def test_packed_logits_equal_those_of_each_document_alone(corpus: Corpus, model: LlamaForCausalLM) -> None:
    batch = next(batches(corpus, 2048, 0.1, seed=0))
    ids, positions, bounds = map(torch.from_numpy, (batch.ids, batch.positions, batch.bounds))
    spans = list(zip(batch.bounds[:4], batch.bounds[1:5], strict=True))
    with torch.no_grad():
        model.config._attn_implementation = "sdpa"
        expected = [model(ids[None, begin:end]).logits[0] for begin, end in spans]
        model.config._attn_implementation = "packed"
        packed = packed_logits(model, ids, positions, bounds)
    for (begin, end), logits in zip(spans, expected, strict=True):
        torch.testing.assert_close(packed[begin:end], logits, atol=1e-4, rtol=1e-4)


def test_labels_are_the_next_token_of_the_same_document(corpus: Corpus) -> None:
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
    assert full_weight_mask(np.array(tokenizer.encode("plain text<|end|>").ids)).all()


def test_a_batch_shorter_than_a_document_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="too short"):
        next(batches(corpus, 128, 0.1, seed=0))


def test_a_few_steps_lower_the_loss(corpus: Corpus) -> None:
    torch.manual_seed(0)
    config = llama_config("draft")
    config._attn_implementation = "packed"
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = pack(corpus, np.arange(12), CONTEXT, 0.1)
    num_tokens = 128
    arrays = [array[:num_tokens] for array in (batch.ids, batch.positions, batch.labels, batch.weights)]
    arrays.append(np.minimum(batch.bounds, num_tokens))
    losses: list[float] = []
    for _ in range(3):
        loss = packed_loss(model, *map(torch.from_numpy, arrays))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
