"""A model folder with the shape of a public model and no weights, for `vllm serve --load-format dummy`.

The speed of an engine does not depend on the values of its weights, so a load test needs neither a download nor a
licence. The answers are noise. The shapes are those of the config.json that each model's publisher provides.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engineroom.load.errors import LoadError

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5, "head_dim": 128, "tie_word_embeddings": False,
    },
    "qwen2.5-0.5b": {  # Qwen's sizes in Llama's architecture, which has no biases
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6, "head_dim": 64, "tie_word_embeddings": True,
    },
}  # fmt: skip


def write_shape(name: str, folder: Path) -> Path:
    """Write config.json and a tokenizer, in which token 0 is the word "t0" and so on, to ``folder``/``name``.

    Returns that folder. Raises LoadError for a shape that is not in SHAPES.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    if name not in SHAPES:
        raise LoadError(f"There is no shape {name!r}. Known shapes: {', '.join(SHAPES)}.")
    shape = SHAPES[name]
    vocabulary = {f"t{token_id}": token_id for token_id in range(int(shape["vocab_size"]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    target = folder / name
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="t0", eos_token="t1").save_pretrained(
        target
    )
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=1, dtype="bfloat16").to_dict()
    config["architectures"] = ["LlamaForCausalLM"]
    (target / "config.json").write_text(json.dumps(config, indent=1))
    return target
