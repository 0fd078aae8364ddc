"""The shipped models: standard files, shapes that every later lesson can shard and quantise, a lossless tokenizer,
and cards whose numbers are those of the records."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from engineroom.kit.record import find
from engineroom.quality.data import TASKS, held_out_items
from engineroom.quality.data.item import render
from tools.training.card import cards, load_json, training_record
from tools.training.config import (
    CONTEXT,
    END_ID,
    VOCAB_SIZE,
    config_json,
    generation_config,
    tokenizer_config,
)

MODELS = Path("models")
NAMES = ("course", "draft")
TOKENIZER = AutoTokenizer.from_pretrained(MODELS / "course")


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest) -> Path:
    return MODELS / request.param


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return TOKENIZER


def test_files_are_what_the_code_writes(folder: Path) -> None:
    expected = {
        "config.json": config_json(folder.name),
        "generation_config.json": generation_config(),
        "tokenizer_config.json": tokenizer_config(),
    }
    for name, content in expected.items():
        assert json.loads((folder / name).read_text()) == content, name


def test_configuration_suits_every_lesson(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["LlamaForCausalLM"] and not config.tie_word_embeddings
    assert config.vocab_size == VOCAB_SIZE == 4096 and config.max_position_embeddings == CONTEXT == 2048
    assert config.num_attention_heads == 2 * config.num_key_value_heads and config.head_dim == 64
    assert config.num_attention_heads * config.head_dim == config.hidden_size
    assert config.num_hidden_layers % 2 == 0 and config.num_key_value_heads % 2 == 0
    for width in (config.hidden_size, config.intermediate_size, config.vocab_size):
        assert width % 256 == 0  # two ranks, groups of 128
    assert config.eos_token_id == END_ID


def test_course_model_can_be_sharded_over_four_ranks() -> None:
    config = AutoConfig.from_pretrained(MODELS / "course")
    assert config.num_key_value_heads == 4 and config.num_attention_heads == 8
    assert config.hidden_size % 512 == config.intermediate_size % 512 == 0


def test_weights_are_bfloat16_and_complete(folder: Path) -> None:
    log = json.loads((folder / "training.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        assert weights.metadata() == {"format": "pt"}
    assert {tensor.get_dtype() for tensor in slices.values()} == {"BF16"}
    assert "lm_head.weight" in slices
    total = sum(prod(tensor.get_shape()) for tensor in slices.values())
    assert total == log["parameters"]
    assert {"course": 8e6 < total < 15e6, "draft": 2e6 < total < 4e6}[folder.name]


def test_size_on_disk() -> None:
    sizes = {name: sum(file.stat().st_size for file in (MODELS / name).iterdir()) for name in NAMES}
    assert sizes["course"] < 40e6 and sizes["draft"] < 10e6


def test_models_share_the_tokenizer() -> None:
    course, draft = ((MODELS / name / "tokenizer.json").read_bytes() for name in NAMES)
    assert course == draft and len(TOKENIZER) == VOCAB_SIZE


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.integers(0, 10**12))
def test_each_digit_is_a_token(number: int) -> None:
    digits = [token for token in TOKENIZER.tokenize(str(number)) if token.isdigit()]
    assert digits == list(str(number))


@pytest.mark.parametrize("task", TASKS)
def test_chat_template_is_what_was_trained(task: str, tokenizer: PreTrainedTokenizerBase) -> None:
    for item in held_out_items(task, 20):
        prompt = tokenizer.apply_chat_template(item.messages, tokenize=False, add_generation_prompt=True)
        assert prompt == render(item.messages)


def test_chat_template_with_system_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "What is TTFT?"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>Be brief.<|end|><|user|>What is TTFT?<|end|><|assistant|>"


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TemplateError, match="system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_held_out_items_fit_the_context(tokenizer: PreTrainedTokenizerBase) -> None:
    for task in TASKS:
        for item in held_out_items(task, 200):
            assert len(tokenizer.encode(render(item.messages, item.answer))) <= CONTEXT


def test_training_record_equals_the_logs() -> None:
    logs = {name: load_json(name, "training.json") for name in NAMES}
    record = find("course-model-training")
    assert record == training_record(logs)
    assert record.values["course"] == [logs["course"]["seconds"]] and record.commit and record.machine["gpus"]


def test_cards_print_the_records() -> None:
    for name, text in cards().items():
        assert (MODELS / name / "README.md").read_text() == text, (
            f"run: python -m tools.training.card ({name})"
        )
    assert (MODELS / "course" / "loss.png").stat().st_size > 5000
