"""Compare what a conversion writes with straightforward tensor arithmetic, and with the source itself."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engineroom.checkpoint import (
    CheckpointError,
    Mapping,
    ModelConfig,
    ShardedModel,
    Sharding,
    convert,
    join,
    open_checkpoint,
)
from engineroom.checkpoint.config import FAMILIES, from_hugging_face
from tests.engineroom.checkpoint.models import SMALL, config_json, write_model

COURSE = Path(__file__).parents[3] / "models" / "course"


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelConfig, Sharding]:
    tp_size = draw(st.sampled_from([1, 2, 4, 8]))
    pp_size = draw(st.integers(1, 3))
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = max(kv_heads, tp_size) * draw(st.integers(1, 2))
    architecture = draw(st.sampled_from(FAMILIES))
    is_llama = architecture == "LlamaForCausalLM"
    model = ModelConfig(
        architecture,
        hidden_size=8 * draw(st.integers(1, 4)),
        num_hidden_layers=draw(st.integers(pp_size, 5)),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_size=draw(st.sampled_from([4, 6])),
        intermediate_size=tp_size * draw(st.integers(1, 5)),
        vocab_size=draw(st.integers(1, 40)),
        tie_word_embeddings=draw(st.booleans()),
        attn_bias=architecture == "Qwen2ForCausalLM" or (is_llama and draw(st.booleans())),
        mlp_bias=is_llama and draw(st.booleans()),
        norm_epsilon=draw(st.sampled_from([1e-5, 1e-6])),
        rotary_base=draw(st.sampled_from([10000.0, 500000.0])),
        rotary_scaling=draw(st.sampled_from([None, {"rope_type": "linear", "factor": 2.0}])),
    )
    sharding = Sharding(Mapping(tp_size, pp_size), draw(st.booleans()), draw(st.sampled_from([0, 1])))
    return model, sharding


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases(), st.integers(1, 3), st.sampled_from([1, 200, 16 * 2**20]))
def test_shards_join_to_the_source(
    case: tuple[ModelConfig, Sharding], num_files: int, block_bytes: int
) -> None:
    model, sharding = case
    module = importlib.import_module("engineroom.checkpoint.convert")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", block_bytes)
        source, output = Path(folder) / "hf", Path(folder) / "out"
        tensors = write_model(source, model, num_files)
        checkpoint = open_checkpoint(convert(source, output, sharding=sharding))
        assert checkpoint.model == model and checkpoint.sharding == sharding
        for rank in range(sharding.mapping.world_size):  # the reference implementation reads our files
            reference = load_file(output / f"rank{rank}.safetensors")
            assert {name: (tensor.shape, tensor.dtype) for name, tensor in reference.items()} == {
                name: (tensor.shape, tensor.dtype) for name, tensor in checkpoint.load(rank).items()
            }
        joined = join(checkpoint)
        assert joined.keys() == tensors.keys()
        assert all(torch.equal(joined[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("tp_size", [1, 2, 4])
def test_one_layer_by_hand(tmp_path: Path, tp_size: int) -> None:
    """Names, fusing and sharding, computed a second time in the obvious way: chunk, repeat, cat."""
    hf = write_model(tmp_path / "hf")
    sharding = Sharding(Mapping(tp_size))
    checkpoint = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out", sharding=sharding))
    source, prefix = "model.layers.1.", "transformer.layers.1."
    q, k, v = (hf[f"{source}self_attn.{x}_proj.weight"] for x in "qkv")
    if tp_size > SMALL.num_key_value_heads:
        k, v = (x.unflatten(0, (2, 8)).repeat_interleave(tp_size // 2, 0).flatten(0, 1) for x in (k, v))
    for rank in range(tp_size):
        actual = checkpoint.load(rank)
        expected = {
            "attention.qkv": torch.cat([x.chunk(tp_size)[rank] for x in (q, k, v)]),
            "attention.dense": hf[f"{source}self_attn.o_proj.weight"].chunk(tp_size, 1)[rank],
            "mlp.fc": hf[f"{source}mlp.gate_proj.weight"].chunk(tp_size)[rank],
            "mlp.gate": hf[f"{source}mlp.up_proj.weight"].chunk(tp_size)[rank],
            "mlp.proj": hf[f"{source}mlp.down_proj.weight"].chunk(tp_size, 1)[rank],
            "input_layernorm": hf[f"{source}input_layernorm.weight"],
            "post_layernorm": hf[f"{source}post_attention_layernorm.weight"],
        }
        for name, tensor in expected.items():
            assert torch.equal(actual[f"{prefix}{name}.weight"], tensor), name


def test_vocabulary_is_padded_with_zeros(tmp_path: Path) -> None:
    hf = write_model(tmp_path / "hf")  # 50 tokens on 4 ranks: 13 each
    convert(tmp_path / "hf", tmp_path / "out", sharding=Sharding(Mapping(4), use_parallel_embedding=True))
    last_rank = open_checkpoint(tmp_path / "out").load(3)
    names = {"lm_head": "lm_head", "transformer.vocab_embedding": "model.embed_tokens"}
    for name, source_name in names.items():
        table = last_rank[f"{name}.weight"]
        assert table.shape == (13, 32)
        assert torch.equal(table[:11], hf[f"{source_name}.weight"][39:]) and not table[11:].any()


def test_layers_count_from_zero_in_each_stage(tmp_path: Path) -> None:
    hf = write_model(tmp_path / "hf")  # 3 layers on 2 stages: 2 and 1
    convert(tmp_path / "hf", tmp_path / "out", sharding=Sharding(Mapping(pp_size=2)))
    first_stage, last_stage = open_checkpoint(tmp_path / "out").ranks
    assert {name.split(".")[2] for name in first_stage if ".layers." in name} == {"0", "1"}
    assert {name.split(".")[2] for name in last_stage if ".layers." in name} == {"0"}
    assert "transformer.vocab_embedding.weight" not in last_stage and "lm_head.weight" not in first_stage
    norm = open_checkpoint(tmp_path / "out").tensor(1, "transformer.layers.0.input_layernorm.weight")
    assert torch.equal(norm, hf["model.layers.2.input_layernorm.weight"])


@pytest.mark.parametrize(
    ("source", "option", "expected"),
    [
        (torch.float32, "auto", torch.float16),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_dtype(tmp_path: Path, source: torch.dtype, option: str, expected: torch.dtype) -> None:
    model = replace(SMALL, dtype=str(source).removeprefix("torch."))
    hf = write_model(tmp_path / "hf", model, dtype=source)
    checkpoint = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out", dtype=option))
    assert all(torch.equal(tensor, hf[name].to(expected)) for name, tensor in join(checkpoint).items())
    assert checkpoint.model.dtype == str(expected).removeprefix("torch.")


@pytest.mark.parametrize(("tp_size", "pp_size"), [(1, 1), (2, 1), (8, 2)])
def test_logits_equal_transformers(tmp_path: Path, tp_size: int, pp_size: int) -> None:
    """The course model, 40 tokens, float32: within 1e-4, for logits up to about 36; the order of the sums differs."""
    token_ids = list(range(100, 140))
    reference = AutoModelForCausalLM.from_pretrained(COURSE, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([token_ids])).logits[0]
    convert(COURSE, tmp_path / "out", sharding=Sharding(Mapping(tp_size, pp_size)))
    actual = ShardedModel(open_checkpoint(tmp_path / "out")).logits(token_ids)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-4)
    assert torch.equal(actual.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize(
    "rope_parameters",
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0},
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ],
)
def test_inverse_frequencies_equal_transformers(rope_parameters: dict[str, Any]) -> None:
    config = config_json(SMALL) | {"rope_parameters": rope_parameters, "rope_scaling": None}
    del config["rope_theta"]
    rotary = LlamaRotaryEmbedding(LlamaConfig(**config))
    actual = from_hugging_face(config, Path("config.json")).inverse_frequencies()
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, rotary.inv_freq, rtol=1e-6, atol=0)


def test_an_unknown_rotary_scaling_is_refused() -> None:
    model = replace(SMALL, rotary_scaling={"rope_type": "yarn", "factor": 4.0})
    with pytest.raises(CheckpointError, match="'yarn' is not supported; expected 'llama3', 'linear' or none"):
        model.inverse_frequencies()
