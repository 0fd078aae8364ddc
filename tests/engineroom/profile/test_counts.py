"""Operations against PyTorch's own counter on transformers' model; bytes against the checkpoint's tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from engineroom.checkpoint import ModelConfig, open_checkpoint, open_model
from engineroom.checkpoint.config import from_hugging_face
from engineroom.checkpoint.convert import convert
from engineroom.load.shape import SHAPES
from engineroom.profile.counts import (
    Count,
    CountError,
    SequenceStep,
    Step,
    count_parts,
    count_step,
    kv_bytes_per_token,
)

COURSE = open_model("models/course").model
LENGTHS = st.lists(st.integers(1, 4000), min_size=1, max_size=8)
VARIANTS = {
    "course": {},
    "every head its own KV head": {"num_key_value_heads": 8},
    "a KV head for all heads": {"num_key_value_heads": 1},
    "tied embeddings": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "heads wider than the hidden size": {"head_dim": 96},
    "an odd vocabulary": {"vocab_size": 1001},
}


def shape(name: str) -> ModelConfig:
    config = {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", **SHAPES[name]}
    return from_hugging_face(config, Path(name))


def hugging_face(variant: dict[str, object]) -> tuple[torch.nn.Module, ModelConfig]:
    """Transformers' model with random weights, whose attention is written as products that PyTorch counts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 64, "intermediate_size": 1024, "vocab_size": 4096,
    } | variant  # fmt: skip
    config = LlamaConfig(**sizes, attn_implementation="eager", dtype="float32")
    model = LlamaForCausalLM(config).eval()
    fields = config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    return model, from_hugging_face(fields, Path("variant"))


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_operations_are_those_that_pytorch_counts(variant: dict[str, object]) -> None:
    """A prompt and then a generation step, whose count is exact.

    In the prompt, transformers multiplies every query by every key and masks those after it: length**2 pairs of which
    length * (length + 1) / 2 count.
    """
    module, model = hugging_face(variant)
    length = 24
    with torch.inference_mode():
        with FlopCounterMode(display=False) as context:
            output = module(torch.arange(length)[None], use_cache=True, logits_to_keep=1)
        with FlopCounterMode(display=False) as generation:
            module(torch.tensor([[5]]), past_key_values=output.past_key_values)
    parts = count_parts(model, Step.context([length]))
    products = count_step(model, Step.context([length])).operations - parts["attention"].operations
    square = parts["attention"].operations * 2 * length // (length + 1)
    assert context.get_total_flops() == products + square
    assert generation.get_total_flops() == count_step(model, Step.generation([length])).operations


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_every_weight_once_and_one_row_of_the_embedding_a_token(tied: bool) -> None:
    model = replace(COURSE, tie_word_embeddings=tied)
    parts = count_parts(model, Step.generation([0] * 3))
    row = model.hidden_size * 2
    checkpoint_bytes = open_model("models/course").nbytes
    weights = sum(count.bytes_read for name, count in parts.items() if name not in ("attention", "embedding"))
    assert weights == checkpoint_bytes - model.vocab_size * row
    assert parts["embedding"] == Count(0, 3 * row)


def test_the_checkpoint_and_the_original_have_the_same_counts(tmp_path: Path) -> None:
    model = open_checkpoint(convert("models/course", tmp_path / "checkpoint", dtype="bfloat16")).model
    step = Step((SequenceStep(7, 9), SequenceStep(1, 30)))
    assert count_parts(model, step) == count_parts(COURSE, step)


@given(LENGTHS)
def test_a_batch_shares_the_weights_and_nothing_else(lengths: list[int]) -> None:
    batch = count_step(COURSE, Step.generation(lengths))
    alone = [count_step(COURSE, Step.generation([length])) for length in lengths]
    row = COURSE.hidden_size * 2
    weights = open_model("models/course").nbytes - COURSE.vocab_size * row
    assert batch.operations == sum(count.operations for count in alone)
    assert batch.bytes_written == len(lengths) * kv_bytes_per_token(COURSE)
    assert batch.bytes_read == sum(count.bytes_read for count in alone) - (len(lengths) - 1) * weights


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_prompt_in_chunks_costs_the_same_operations_as_whole(first: int, second: int) -> None:
    chunks = [Step((SequenceStep(first, samples=False),)), Step((SequenceStep(second, first),))]
    whole = count_step(COURSE, Step.context([first + second]))
    parts = [count_step(COURSE, chunk) for chunk in chunks]
    assert sum(count.operations for count in parts) == whole.operations
    assert sum(count.bytes_written for count in parts) == whole.bytes_written
    assert parts[0].bytes_read < parts[1].bytes_read, "a chunk that samples nothing does not read the head"


@given(LENGTHS)
def test_intensity_grows_with_the_batch_and_falls_with_the_context(lengths: list[int]) -> None:
    model = shape("llama-3.1-8b")
    intensity = count_step(model, Step.generation(lengths)).intensity
    assert count_step(model, Step.generation([*lengths, min(lengths)])).intensity > intensity
    group = model.num_attention_heads // model.num_key_value_heads
    assert count_parts(model, Step.generation(lengths))["attention"].intensity < group


def test_llama_8b_reads_15_gb_a_token() -> None:
    """The figure that engineers know: 8.03 billion parameters, less the embedding, two bytes each."""
    count = count_step(shape("llama-3.1-8b"), Step.generation([0]))
    assert count.bytes_read == pytest.approx(2 * (8.03e9 - 128256 * 4096), rel=1e-3)


@pytest.mark.parametrize(
    "sequences", [(), (SequenceStep(0),), (SequenceStep(1, -1),), (SequenceStep(1), SequenceStep(-2))]
)
def test_a_step_without_tokens_is_refused(sequences: tuple[SequenceStep, ...]) -> None:
    with pytest.raises(CountError, match="at least one new token"):
        Step(sequences)
