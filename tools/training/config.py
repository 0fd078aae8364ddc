"""The two Llama configurations and the Hugging Face files around the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from engineroom.kit.files import write_atomic
from engineroom.quality.data.item import END, PAD, SPECIAL_TOKENS

VOCAB_SIZE = 4096
CONTEXT = 2048
ROPE_THETA = 10000.0
PAD_ID, END_ID = SPECIAL_TOKENS.index(PAD), SPECIAL_TOKENS.index(END)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('the roles are system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Every width is a multiple of 128, even when two ranks share it, so that every quantisation applies.
SHAPES: dict[str, dict[str, int]] = {
    "course": {
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
    },
    "draft": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def llama_config(name: str) -> LlamaConfig:
    """The configuration of the `course` or the `draft` model; head_dim 64, two query heads per KV head."""
    shape = SHAPES[name]
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=CONTEXT,
        head_dim=64,
        num_key_value_heads=shape["num_attention_heads"] // 2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
    )


def config_json(name: str) -> dict[str, Any]:
    """`config.json` with the keys that transformers 4 and 5 read."""
    config = llama_config(name).to_diff_dict()
    config.pop("transformers_version", None)
    for_both = {"rope_theta": ROPE_THETA, "torch_dtype": "bfloat16", "dtype": "bfloat16", "head_dim": 64}
    fixed = {"num_key_value_heads": SHAPES[name]["num_attention_heads"] // 2, "hidden_act": "silu"}
    flags = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
    return config | {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5} | for_both | fixed | flags


def tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL_TOKENS[2:]),
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": CHAT_TEMPLATE,
    }


def generation_config() -> dict[str, Any]:
    """Greedy decoding unless the caller sets a temperature; generation ends at the end token."""
    return {"eos_token_id": END_ID, "pad_token_id": PAD_ID, "do_sample": False, "temperature": 0.0}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON; a reader sees the old file or the new one."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_model_files(folder: Path, name: str) -> None:
    """Write every file of the model but the weights and `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_json(name))
    write_json(folder / "generation_config.json", generation_config())
    write_json(folder / "tokenizer_config.json", tokenizer_config())
