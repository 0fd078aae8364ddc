"""Where a folder says a thing twice, the conversion computes what transformers computes, or refuses.

Each test loads the same folder with both and compares the logits, over combinations of the sources.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engineroom.checkpoint import (
    CheckpointError,
    open_model,
    reference_logits,
)
from engineroom.checkpoint.source import INDEX
from tests.engineroom.checkpoint.saved_models import (
    ABSENT,
    EMBEDDING,
    FILE,
    LM_HEAD,
    MODEL_TYPES,
    TOKEN_IDS,
    assert_same,
    change_config,
    load_report,
    write,
)

FILES = list(itertools.product((False, True), (False, True), (False, True), (ABSENT, FILE, INDEX)))


@pytest.mark.parametrize(("has_single", "has_index", "has_others", "explicit"), FILES)
def test_files(tmp_path: Path, has_single: bool, has_index: bool, has_others: bool, explicit: str) -> None:
    """One file, an index with its files, and files of other programs: each holds different weights."""
    folder = write(tmp_path / "hf", seed=1)
    single = load_file(folder / FILE)
    if not has_single:
        (folder / FILE).unlink()
    if has_index:
        sharded = {name: tensor + 0.25 for name, tensor in single.items()}
        names = sorted(sharded)
        shards = {
            "model-00001-of-00002.safetensors": names[::2],
            "model-00002-of-00002.safetensors": names[1::2],
        }
        for file, part in shards.items():
            save_file({name: sharded[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map = {name: file for file, part in shards.items() for name in part}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if has_others:
        for file in ("adapter_model.safetensors", "consolidated.safetensors", "consolidated.00.safetensors"):
            save_file({"x": torch.zeros(2)}, folder / file, metadata={"format": "pt"})
    change_config(folder, transformers_weights=explicit)
    try:
        reference_logits(folder, TOKEN_IDS)
    except (OSError, ValueError):
        with pytest.raises(CheckpointError):
            open_model(folder)
        return
    assert_same(folder, tmp_path / "out")


def test_a_model_saved_again_over_an_old_index(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="10KB")
    (folder / FILE).unlink(missing_ok=True)
    assert (folder / INDEX).exists()
    with torch.no_grad():
        model.lm_head.weight += 1
    model.save_pretrained(folder)
    assert_same(folder, tmp_path / "out")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("flag", [True, False, ABSENT])
@pytest.mark.parametrize("stored", ["embedding", "head", "equal", "different", "neither"])
def test_tied_flag_and_lm_head(tmp_path: Path, model_type: str, flag: Any, stored: str) -> None:
    folder = write(tmp_path / "hf", model_type)
    weights = load_file(folder / FILE)
    if stored in ("embedding", "neither"):
        del weights[LM_HEAD]
    if stored in ("head", "neither"):
        del weights[EMBEDDING]
    if stored == "equal":
        weights[LM_HEAD] = weights[EMBEDDING].clone()
    save_file(weights, folder / FILE, metadata={"format": "pt"})
    change_config(folder, tie_word_embeddings=flag)
    if load_report(folder)["missing_keys"]:  # transformers fills them with random values
        with pytest.raises(CheckpointError, match=r"lacks [12] tensor"):
            open_model(folder)
    else:
        assert_same(folder, tmp_path / "out")


DTYPES = [ABSENT, None, "float32", "float16", "bfloat16", "half"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("torch_dtype", DTYPES)
def test_dtype_in_its_spellings(tmp_path: Path, dtype: Any, torch_dtype: Any) -> None:
    folder = write(tmp_path / "hf")
    weights = {name: tensor.bfloat16() for name, tensor in load_file(folder / FILE).items()}
    save_file(weights, folder / FILE, metadata={"format": "pt"})
    change_config(folder, dtype=dtype, torch_dtype=torch_dtype)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype
    assert f"torch.{open_model(folder).model.dtype}" == str(expected)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["int8", "bf16", 16, {"": "float16"}, "nn"])
def test_a_dtype_that_is_none_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = write(tmp_path / "hf")
    change_config(folder, **({"dtype": ABSENT} | {key: value}))
    with pytest.raises(CheckpointError, match=f"'{key}' is .*expected the name of a dtype"):
        open_model(folder)


CLASSES = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("architectures", [ABSENT, None, [], *([name] for name in CLASSES)])
def test_model_type_and_architectures(tmp_path: Path, model_type: str, architectures: Any) -> None:
    folder = write(tmp_path / "hf", model_type)
    change_config(folder, architectures=architectures)
    assert_same(folder, tmp_path / "out")


@pytest.mark.parametrize("stored", MODEL_TYPES)
@pytest.mark.parametrize("named", MODEL_TYPES)
def test_weights_of_another_model_type(tmp_path: Path, stored: str, named: str) -> None:
    folder = write(tmp_path / "hf", stored)
    change_config(folder, model_type=named)
    information = load_report(folder)
    if information["missing_keys"] or information["unexpected_keys"]:
        with pytest.raises(CheckpointError, match=r"lacks|have no place|'layer_types' is"):
            open_model(folder)
    else:
        assert_same(folder, tmp_path / "out")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
@pytest.mark.parametrize("value", [True, False, None, "false", 1])
def test_biases(tmp_path: Path, model_type: str, key: str, value: Any) -> None:
    """A model with the biases that transformers gives it: they are used, or the key is refused."""
    folder = write(tmp_path / "hf", model_type, **({key: value} if isinstance(value, bool) else {}))
    change_config(folder, **{key: value})
    is_accepted = value in (False, None) or (value is True and model_type == "llama")
    is_accepted |= isinstance(value, bool) and (model_type, key) == ("qwen2", "attention_bias")
    if not is_accepted:
        with pytest.raises(CheckpointError, match=f"'{key}' is {value!r}"):
            open_model(folder)
    else:
        change_config(folder, **{key: ABSENT if value is None else value})  # transformers refuses null
        assert_same(folder, tmp_path / "out")
