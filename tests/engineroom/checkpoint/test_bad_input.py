"""Bad input gets a message that says what is wrong and what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import (
    CheckpointError,
    Mapping,
    ModelConfig,
    Sharding,
    convert,
    join,
    open_checkpoint,
)
from engineroom.checkpoint.source import INDEX
from engineroom.kit.output import OutputError, output_directory
from tests.engineroom.checkpoint.models import TWO_RANKS, write_model

Damage = Callable[[Path], object]
FILE = "model.safetensors"
FIRST_OF_TWO = "model-00001-of-00002.safetensors"


def change_config(**changes: object) -> Damage:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def change_weights(name: str, tensor: torch.Tensor | None) -> Damage:
    """Replace one tensor, or remove it."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / FILE)
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
        save_file(tensors, folder / FILE)

    return change


def truncate(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-10])


def corrupt_header(folder: Path) -> None:
    raw = bytearray((folder / FILE).read_bytes())
    raw[20] = 0xFF
    (folder / FILE).write_bytes(raw)


def announce_endless_header(folder: Path) -> None:
    (folder / FILE).write_bytes(struct.pack("<Q", 2**62) + b"{}")


def overlap_tensors(folder: Path) -> None:
    entry = {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    (folder / FILE).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def rename_to_pickle(folder: Path) -> None:
    (folder / FILE).rename(folder / "pytorch_model.bin")


def replace_by_index(weight_map: dict[str, str]) -> Damage:
    def change(folder: Path) -> None:
        (folder / FILE).unlink()
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return change


Q = "model.layers.1.self_attn.q_proj.weight"
DAMAGES: list[tuple[str, Damage, str]] = [
    (
        "no config",
        lambda folder: (folder / "config.json").unlink(),
        r"config\.json does not exist.*save_pretrained",
    ),
    (
        "config not JSON",
        lambda folder: (folder / "config.json").write_text("{"),
        r"config\.json is unreadable",
    ),
    (
        "config a list",
        lambda folder: (folder / "config.json").write_text("[]"),
        r"holds a list, not an object",
    ),
    (
        "architecture",
        change_config(architectures=["BertModel"]),
        r"BertModel; expected one of LlamaForCausalLM",
    ),
    ("no architecture", change_config(architectures=None), r"architecture none; expected"),
    ("quantised", change_config(quantization_config={"bits": 4}), r"already quantised.*original"),
    ("no size", change_config(hidden_size=None), r"'hidden_size' is None; expected a whole number"),
    ("negative size", change_config(vocab_size=-1), r"'vocab_size' is -1"),
    ("no epsilon", change_config(rms_norm_eps=None), r"'rms_norm_eps' is None; expected a number above 0"),
    ("other sizes", change_config(intermediate_size=64), r"is \[48, 32\]; config.json implies \[64, 32\]"),
    ("tensor missing", change_weights(Q, None), r"lacks 1 tensor.*model\.layers\.1\.self_attn\.q_proj"),
    (
        "tensor too small",
        change_weights(Q, torch.zeros(8, 32, dtype=torch.bfloat16)),
        r"q_proj.*implies \[32, 32\]",
    ),
    (
        "tensor of integers",
        change_weights(Q, torch.zeros(32, 32, dtype=torch.int8)),
        r"is I8; expected one of F32",
    ),
    ("truncated", truncate, r"damaged.*should have .* bytes"),
    ("corrupt header", corrupt_header, r"damaged.*header does not parse"),
    ("endless header", announce_endless_header, r"damaged.*header would be"),
    ("overlap", overlap_tensors, r"damaged.*gap or an overlap"),
    ("empty file", lambda folder: (folder / FILE).write_bytes(b""), r"damaged"),
    ("no weights", lambda folder: (folder / FILE).unlink(), r"has 0 \*\.safetensors"),
    ("pickled", rename_to_pickle, r"only pickled weights.*save_pretrained"),
    (
        "index to nowhere",
        replace_by_index({Q: FIRST_OF_TWO}),
        rf"{FIRST_OF_TWO} does not exist, although the model names it",
    ),
    ("index out of the folder", replace_by_index({Q: "../x.safetensors"}), r"is outside the model folder"),
    ("index empty", replace_by_index({}), r"has no weight_map"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [pytest.param(damage, message, id=name) for name, damage, message in DAMAGES]
)
def test_bad_model(tmp_path: Path, damage: Damage, message: str) -> None:
    write_model(tmp_path / "hf")
    damage(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        convert(tmp_path / "hf", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("make_sharding", "message"),
    [
        (lambda: Sharding(Mapping(3)), r"--tp_size 3 does not divide num_attention_heads 4"),
        (lambda: Sharding(Mapping(pp_size=4)), r"--pp_size 4: the model has only 3 layers"),
        (lambda: Sharding(Mapping(0)), r"--tp_size 0: expected a whole number from 1 up"),
        (lambda: Sharding(Mapping(1), True, 2), r"--embedding_sharding_dim 2"),
    ],
)
def test_bad_sharding(tmp_path: Path, make_sharding: Callable[[], Sharding], message: str) -> None:
    write_model(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "hf", tmp_path / "out", sharding=make_sharding())
    assert not list(tmp_path.glob("out*"))


def test_kv_heads_that_fit_no_rank(tmp_path: Path) -> None:
    write_model(tmp_path / "hf", ModelConfig("LlamaForCausalLM", 24, 1, 6, 3, 4, 12, 10))
    with pytest.raises(CheckpointError, match="num_key_value_heads 3: one must divide the other"):
        convert(tmp_path / "hf", tmp_path / "out", sharding=TWO_RANKS)


def test_bad_dtype(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    with pytest.raises(CheckpointError, match="--dtype int8: expected auto, float32"):
        convert(tmp_path / "hf", tmp_path / "out", dtype="int8")


def test_float16_that_overflows(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    change_weights(Q, torch.full((32, 32), 1e6, dtype=torch.bfloat16))(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=r"beyond float16's largest, 65504.*--dtype bfloat16"):
        convert(tmp_path / "hf", tmp_path / "out", dtype="float16")
    assert not list(tmp_path.glob("out*"))


def test_a_snapshot_of_the_hugging_face_cache_is_accepted(tmp_path: Path) -> None:
    """The hub's cache links a snapshot's files to ../../blobs; such a folder is accepted like any other."""
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    write_model(snapshot)
    blobs.mkdir()
    (snapshot / FILE).rename(blobs / "0123")
    (snapshot / FILE).symlink_to("../../blobs/0123")
    assert convert(snapshot, tmp_path / "out").is_dir()


def test_output_not_empty(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="exists and is not empty"):
        convert(tmp_path / "hf", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_output_in_use(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    with (
        output_directory(tmp_path / "out", 0),
        pytest.raises(OutputError, match="being written by another run"),
    ):
        convert(tmp_path / "hf", tmp_path / "out")


def test_disk_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "hf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"disk is full.*Nothing was left behind"):
        convert(tmp_path / "hf", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_disk_full_midway(tmp_path: Path) -> None:
    """The operating system limits the size of a file, and the rank file would exceed the limit."""
    write_model(tmp_path / "hf")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="disk is full"):
            convert(tmp_path / "hf", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("out*"))


def test_readers_refuse(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "out", sharding=TWO_RANKS)
    with pytest.raises(CheckpointError, match="no 'architecture'"):
        open_checkpoint(tmp_path / "hf")
    with pytest.raises(CheckpointError, match="holds no 'x'"):
        open_checkpoint(tmp_path / "out").tensor(0, "x")
    (tmp_path / "out" / "rank1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete: rank1\.safetensors missing"):
        open_checkpoint(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        open_checkpoint(tmp_path)


def test_join_sees_copies_that_differ(tmp_path: Path) -> None:
    write_model(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "out", sharding=TWO_RANKS)
    weights = load_file(tmp_path / "out" / "rank1.safetensors")
    weights["transformer.ln_f.weight"] += 1
    save_file(weights, tmp_path / "out" / "rank1.safetensors")
    with pytest.raises(CheckpointError, match=r"ln_f.* differs from a copy of model\.norm"):
        join(open_checkpoint(tmp_path / "out"))
