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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from engineroom.checkpoint import (
    CheckpointError,
    ShardedModel,
    convert,
    open_checkpoint,
    open_model,
    reference_logits,
)
from engineroom.checkpoint.source import INDEX

TOKEN_IDS = [1, 2, 3, 4, 5, 6, 7, 8] * 3
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 128}
ABSENT: Any = "absent"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
FILE = "model.safetensors"
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def write(folder: Path, model_type: str = "llama", seed: int = 0, **config: Any) -> Path:
    """A model with random weights, biases and norms too, as transformers saves it."""
    logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES, **config)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ABSENT}))


def ours(folder: Path, output: Path) -> torch.Tensor:
    return ShardedModel(open_checkpoint(convert(folder, output, dtype="float32"))).logits(TOKEN_IDS)


def load_report(folder: Path) -> dict[str, Any]:
    """What transformers says about a folder: its missing_keys, unexpected_keys and so on."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    report: dict[str, Any] = loaded[1]
    return report


def assert_same(folder: Path, output: Path) -> None:
    expected = reference_logits(folder, TOKEN_IDS)
    actual = ours(folder, output)
    difference = (actual.cpu() - expected).abs().max().item()
    assert difference <= 1e-4 * expected.abs().max().item(), difference


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


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS: list[Any] = [
    ABSENT,
    None,
    {},
    {"type": "default"},
    {"rope_type": "default", "rope_theta": 3e5},
    {"type": "default", "factor": 2.0},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
    {"rope_type": "linear", "type": "default", "factor": 4.0},
    {"rope_type": "default", "type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "original_max_position_embeddings": 16, **LLAMA3},
    {"rope_type": "llama3", **LLAMA3},
    {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 1.0},
    {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5},
    {"rope_type": "yarn", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
]
REFUSED_SCALINGS = SCALINGS[-3:]
THETAS = [ABSENT, 1e4, 7e5]
ORIGINALS = [ABSENT, 64]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("llama") / "hf")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    scaling=st.sampled_from(SCALINGS),
    parameters=st.sampled_from(SCALINGS),
    theta=st.sampled_from(THETAS),
    original=st.sampled_from(ORIGINALS),
)
def test_rope(
    llama: Path,
    tmp_path_factory: pytest.TempPathFactory,
    scaling: Any,
    parameters: Any,
    theta: Any,
    original: Any,
) -> None:
    config = {"rope_scaling": scaling, "rope_parameters": parameters, "rope_theta": theta}
    change_config(llama, **config, original_max_position_embeddings=original)
    counted = scaling if isinstance(scaling, dict) and scaling else parameters
    if any(counted is refused for refused in REFUSED_SCALINGS):
        with pytest.raises(CheckpointError, match=r"yarn|dynamic|partial_rotary_factor"):
            open_model(llama)
    else:
        assert_same(llama, tmp_path_factory.mktemp("rope") / "out")


@pytest.mark.parametrize("scaling", SCALINGS[:-4])
@pytest.mark.parametrize("theta", THETAS)
def test_rope_of_files_of_transformers_4(llama: Path, tmp_path: Path, scaling: Any, theta: Any) -> None:
    change_config(
        llama,
        rope_scaling=scaling,
        rope_parameters=ABSENT,
        rope_theta=theta,
        original_max_position_embeddings=ABSENT,
    )
    assert_same(llama, tmp_path / "out")


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


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name) / "hf", name) for name in MODEL_TYPES}


WINDOWS = [ABSENT, None, 4, 127, 128, 4096]
LAYERS = [ABSENT, None, ["full_attention"] * 2, ["full_attention", "sliding_attention"], ["full_attention"]]


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    model_type=st.sampled_from(MODEL_TYPES),
    window=st.sampled_from(WINDOWS),
    switch=st.sampled_from([ABSENT, True, False]),
    first=st.sampled_from([ABSENT, 0, 1, 2]),
    layer_types=st.sampled_from(LAYERS),
)
def test_sliding_windows(
    families: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    model_type: str,
    window: Any,
    switch: Any,
    first: Any,
    layer_types: Any,
) -> None:
    """What the conversion accepts equals transformers; a window that no sequence reaches is accepted."""
    folder = families[model_type]
    keys = {"sliding_window": window, "use_sliding_window": switch, "max_window_layers": first}
    change_config(folder, **keys, layer_types=layer_types)
    try:
        open_model(folder)
    except CheckpointError as error:
        assert "'sliding_window'" in str(error) or "'layer_types'" in str(error)
        assert window in (4, 127) or layer_types not in (ABSENT, None)
    else:
        if model_type == "mistral" and layer_types is None:
            change_config(
                folder, layer_types=ABSENT
            )  # with the key, even null, transformers loads a Ministral
        assert_same(folder, tmp_path_factory.mktemp("window") / "out")


@pytest.mark.parametrize("activation", ["silu", "swish", "gelu", "gelu_pytorch_tanh", "relu", None, ABSENT])
def test_activations(tmp_path: Path, activation: Any) -> None:
    folder = write(tmp_path / "hf")
    change_config(folder, hidden_act=activation)
    if activation in ("silu", "swish", ABSENT):
        assert_same(folder, tmp_path / "out")
    else:
        with pytest.raises(CheckpointError, match=f"'hidden_act' is {activation!r}.*'silu' or 'swish'"):
            open_model(folder)
