"""What a conversion writes, against straightforward tensor arithmetic and against the source itself."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engineroom.checkpoint import Layout, Mapping, ModelConfig, convert, join, open_checkpoint
from engineroom.checkpoint.config import FAMILIES
from engineroom.checkpoint.forward import Forward
from tests.engineroom.checkpoint.models import SMALL, write

COURSE = Path(__file__).parents[3] / "models" / "course"


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelConfig, Layout]:
    tp, pp = draw(st.sampled_from([1, 2, 4, 8])), draw(st.integers(1, 3))
    kv = draw(st.sampled_from([1, 2, 4, 8]))
    heads = max(kv, tp) * draw(st.integers(1, 2))
    architecture = draw(st.sampled_from(FAMILIES))
    llama = architecture == "LlamaForCausalLM"
    model = ModelConfig(
        architecture,
        hidden_size=8 * draw(st.integers(1, 4)),
        num_hidden_layers=draw(st.integers(pp, 5)),
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_size=draw(st.sampled_from([4, 6])),
        intermediate_size=tp * draw(st.integers(1, 5)),
        vocab_size=draw(st.integers(1, 40)),
        tie_word_embeddings=draw(st.booleans()),
        attn_bias=architecture == "Qwen2ForCausalLM" or (llama and draw(st.booleans())),
        mlp_bias=llama and draw(st.booleans()),
    )
    return model, Layout(Mapping(tp, pp), draw(st.booleans()), draw(st.sampled_from([0, 1])))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases(), st.integers(1, 3), st.sampled_from([1, 200, 16 * 2**20]))
def test_shards_join_to_the_source(case: tuple[ModelConfig, Layout], files: int, block: int) -> None:
    model, layout = case
    module = importlib.import_module("engineroom.checkpoint.convert")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        weights = write(Path(folder) / "hf", model, files)
        checkpoint = open_checkpoint(convert(Path(folder) / "hf", Path(folder) / "out", layout=layout))
        assert checkpoint.model == model and checkpoint.layout == layout
        for rank in range(layout.mapping.world_size):  # the reference implementation reads what we laid out
            theirs = load_file(Path(folder) / "out" / f"rank{rank}.safetensors")
            assert {k: (v.shape, v.dtype) for k, v in theirs.items()} == {
                k: (v.shape, v.dtype) for k, v in checkpoint.load(rank).items()
            }
        joined = join(checkpoint)
        assert joined.keys() == weights.keys()
        assert all(torch.equal(joined[name], weights[name]) for name in weights)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_one_layer_by_hand(tmp_path: Path, tp: int) -> None:
    """Names, fusing and cutting, written once more the obvious way: chunk, repeat, cat."""
    hf = write(tmp_path / "hf")
    checkpoint = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out", layout=Layout(Mapping(tp))))
    theirs, ours = "model.layers.1.", "transformer.layers.1."
    q, k, v = (hf[f"{theirs}self_attn.{x}_proj.weight"] for x in "qkv")
    if tp > SMALL.num_key_value_heads:
        k, v = (x.unflatten(0, (2, 8)).repeat_interleave(tp // 2, 0).flatten(0, 1) for x in (k, v))
    for rank in range(tp):
        got = checkpoint.load(rank)
        want = {
            "attention.qkv": torch.cat([x.chunk(tp)[rank] for x in (q, k, v)]),
            "attention.dense": hf[f"{theirs}self_attn.o_proj.weight"].chunk(tp, 1)[rank],
            "mlp.fc": hf[f"{theirs}mlp.gate_proj.weight"].chunk(tp)[rank],
            "mlp.gate": hf[f"{theirs}mlp.up_proj.weight"].chunk(tp)[rank],
            "mlp.proj": hf[f"{theirs}mlp.down_proj.weight"].chunk(tp, 1)[rank],
            "input_layernorm": hf[f"{theirs}input_layernorm.weight"],
            "post_layernorm": hf[f"{theirs}post_attention_layernorm.weight"],
        }
        assert all(torch.equal(got[f"{ours}{name}.weight"], tensor) for name, tensor in want.items())
        assert got.keys() >= {f"{ours}{name}.weight" for name in want}


def test_vocabulary_is_padded_with_zeros(tmp_path: Path) -> None:
    hf = write(tmp_path / "hf")  # 50 tokens on 4 ranks: 13 each
    convert(tmp_path / "hf", tmp_path / "out", layout=Layout(Mapping(4), use_parallel_embedding=True))
    last = open_checkpoint(tmp_path / "out").load(3)
    for ours, theirs in (("lm_head", "lm_head"), ("transformer.vocab_embedding", "model.embed_tokens")):
        table = last[f"{ours}.weight"]
        assert table.shape == (13, 32)
        assert torch.equal(table[:11], hf[f"{theirs}.weight"][39:]) and not table[11:].any()


def test_layers_count_from_zero_in_each_stage(tmp_path: Path) -> None:
    hf = write(tmp_path / "hf")  # 3 layers on 2 stages: 2 and 1
    convert(tmp_path / "hf", tmp_path / "out", layout=Layout(Mapping(pp_size=2)))
    first, second = open_checkpoint(tmp_path / "out").ranks
    assert {name.split(".")[2] for name in first if ".layers." in name} == {"0", "1"}
    assert {name.split(".")[2] for name in second if ".layers." in name} == {"0"}
    assert "transformer.vocab_embedding.weight" not in second and "lm_head.weight" not in first
    norm = open_checkpoint(tmp_path / "out").tensor(1, "transformer.layers.0.input_layernorm.weight")
    assert torch.equal(norm, hf["model.layers.2.input_layernorm.weight"])


@pytest.mark.parametrize(
    ("source", "wish", "want"),
    [
        (torch.float32, "auto", torch.float16),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_dtype(tmp_path: Path, source: torch.dtype, wish: str, want: torch.dtype) -> None:
    hf = write(tmp_path / "hf", dtype=source)
    config = tmp_path / "hf" / "config.json"
    config.write_text(config.read_text().replace("bfloat16", str(source).removeprefix("torch.")))
    checkpoint = open_checkpoint(convert(tmp_path / "hf", tmp_path / "out", dtype=wish))
    assert all(torch.equal(tensor, hf[name].to(want)) for name, tensor in join(checkpoint).items())
    assert checkpoint.config["dtype"] == str(want).removeprefix("torch.")


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (8, 2)])
def test_logits_equal_transformers(tmp_path: Path, tp: int, pp: int) -> None:
    """The course model, 40 tokens, float32: within 1e-4 of logits up to about 36 (the sums have another order)."""
    tokens = list(range(100, 140))
    theirs = AutoModelForCausalLM.from_pretrained(COURSE, dtype=torch.float32)
    with torch.inference_mode():
        want = theirs(torch.tensor([tokens])).logits[0]
    convert(COURSE, tmp_path / "out", layout=Layout(Mapping(tp, pp)))
    got = Forward(open_checkpoint(tmp_path / "out")).logits(tokens)
    assert torch.allclose(got, want, rtol=0, atol=1e-4)
    assert torch.equal(got.argmax(-1), want.argmax(-1))
