"""Model folders as people have them: links, pointers, adapters and other formats are read, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import CheckpointError, ModelConfig, convert, join, open_checkpoint, open_model
from engineroom.checkpoint.source import INDEX
from tests.engineroom.checkpoint.models import SMALL, write_model

FILE = "model.safetensors"
SHARDS = [f"model-0000{index}-of-00002.safetensors" for index in (1, 2)]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
NOBODY = 65534


def link_elsewhere(folder: Path, *names: str) -> None:
    """Move files to a cache beside the folder, and leave links to them."""
    blobs = folder.parent / "cache" / "blobs"
    blobs.mkdir(parents=True)
    for name in names:
        (folder / name).rename(blobs / name.upper())
        (folder / name).symlink_to(blobs / name.upper())


@pytest.mark.parametrize("num_files", [1, 2])
@pytest.mark.parametrize("are_links_relative", [True, False])
def test_links_are_followed_unless_that_is_forbidden(
    tmp_path: Path, num_files: int, are_links_relative: bool
) -> None:
    folder = tmp_path / "hf"
    tensors = write_model(folder, num_files=num_files)
    names = [FILE] if num_files == 1 else [*SHARDS, INDEX]
    link_elsewhere(folder, "config.json", *names)
    if are_links_relative:
        for link in folder.iterdir():
            target = os.path.relpath(link.readlink(), folder)
            link.unlink()
            link.symlink_to(target)
    joined = join(open_checkpoint(convert(folder, tmp_path / "out")))
    assert all(torch.equal(joined[name], tensors[name]) for name in tensors)
    with pytest.raises(CheckpointError, match=r"is outside the model folder: it leads to .*--follow_links"):
        convert(folder, tmp_path / "forbidden", follow_links=False)
    assert not (tmp_path / "forbidden").exists()


def test_links_within_the_folder_and_the_hub_cache_are_never_forbidden(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    write_model(snapshot)
    (tmp_path / "models--x" / "blobs").mkdir()
    (snapshot / FILE).rename(tmp_path / "models--x" / "blobs" / "0123")
    (snapshot / FILE).symlink_to("../../blobs/0123")
    assert open_model(snapshot, follow_links=False).tensors
    write_model(tmp_path / "hf")
    (tmp_path / "hf" / FILE).rename(tmp_path / "hf" / "weights")
    (tmp_path / "hf" / FILE).symlink_to("weights")
    assert open_model(tmp_path / "hf", follow_links=False).tensors


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def write_lora(folder: Path) -> None:
    remove(folder, FILE, "config.json")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "meta-llama/Llama-2"}))
    save_file({"x": torch.zeros(2)}, folder / "adapter_model.safetensors")


def write_lora_with_config(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    write_lora(folder)
    (folder / "config.json").write_text(config)


def keep_adapter_only(folder: Path) -> None:
    (folder / FILE).rename(folder / "adapter_model.safetensors")


def write_gguf(folder: Path) -> None:
    remove(folder, FILE, "config.json")
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def write_gguf_with_config(folder: Path) -> None:
    remove(folder, FILE)
    (folder / "model.gguf").write_bytes(b"GGUF")


def keep_consolidated_only(folder: Path) -> None:
    (folder / FILE).rename(folder / "consolidated.safetensors")


def write_original_format(folder: Path) -> None:
    remove(folder, FILE, "config.json")
    (folder / "params.json").write_text("{}")
    (folder / "consolidated.00.pth").write_bytes(b"")


def break_link(folder: Path) -> None:
    remove(folder, FILE)
    (folder / FILE).symlink_to("../cache/gone")


def link_to_itself(folder: Path) -> None:
    remove(folder, FILE)
    (folder / FILE).symlink_to(FILE)


def break_shard_link(folder: Path) -> None:
    remove(folder, FILE)
    write_model(folder, num_files=2)
    remove(folder, SHARDS[1])
    (folder / SHARDS[1]).symlink_to("../cache/gone")


def make_shard_a_folder(folder: Path) -> None:
    remove(folder, FILE)
    write_model(folder, num_files=2)
    remove(folder, SHARDS[1])
    (folder / SHARDS[1]).mkdir()


def make_index_a_pointer(folder: Path) -> None:
    remove(folder, FILE)
    (folder / INDEX).write_text(POINTER)


def name_shard(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        remove(folder, FILE)
        (folder / INDEX).write_text(json.dumps({"weight_map": {"x": name}}))

    return change


FOLDERS: list[tuple[Callable[[Path], object], str]] = [
    (write_lora, r"LoRA adapter.*load meta-llama/Llama-2 .*merge_and_unload"),
    (write_lora_with_config, r"LoRA adapter.*load meta-llama/Llama-2 .*merge_and_unload"),
    (keep_adapter_only, r"LoRA adapter.*merge_and_unload"),
    (write_gguf, r"model-Q4_K_M\.gguf, llama\.cpp's GGUF format"),
    (write_gguf_with_config, r"model\.gguf, llama\.cpp's GGUF format"),
    (keep_consolidated_only, r"only consolidated\.safetensors, Mistral's own format"),
    (write_original_format, r"original format of Meta or Mistral \(params\.json\)"),
    (break_link, r"model\.safetensors links to \.\./cache/gone, which does not exist"),
    (link_to_itself, r"model\.safetensors"),
    (break_shard_link, rf"{SHARDS[1]} \(a link to \.\./cache/gone\) does not exist"),
    (make_shard_a_folder, rf"{SHARDS[1]} is not a regular file"),
    (make_index_a_pointer, rf"{INDEX} is a Git LFS pointer.*git lfs pull"),
    (lambda folder: (folder / FILE).write_text(POINTER), r"model\.safetensors is a Git LFS pointer"),
    (lambda folder: (folder / "config.json").write_text(POINTER), r"config\.json is a Git LFS pointer"),
    (name_shard("/etc/x.safetensors"), r"/etc/x\.safetensors is outside the model folder"),
    (name_shard("a/../../x.safetensors"), r"is outside the model folder"),
]


@pytest.mark.parametrize(("change", "message"), FOLDERS)
def test_other_folders_get_a_message_of_their_own(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    write_model(tmp_path / "hf")
    change(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        convert(tmp_path / "hf", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_names_that_are_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"hf download Qwen/Qwen3-0\.6B --local-dir"):
        open_model("Qwen/Qwen3-0.6B")
    with pytest.raises(CheckpointError, match=r"does not exist") as caught:
        open_model(tmp_path / "missing")
    assert "hf download" not in str(caught.value)
    Path("model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"model\.gguf is a file, llama\.cpp's GGUF format"):
        open_model("model.gguf")
    write_model(tmp_path / "hf")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file\. Expected the folder"):
        open_model(tmp_path / "hf" / FILE)


@pytest.mark.parametrize("name", ["config.json", FILE, "."])
def test_what_may_not_be_read_is_named(name: str) -> None:
    """In a child process that is not root, because root may read everything."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # TMPDIR is a folder that nobody else may enter
    try:
        write_model(folder)
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        (folder / name).chmod(0)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            message = "no error"
            try:
                if os.geteuid() == 0:
                    os.setuid(NOBODY)
                open_model(folder)
            except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
                message = f"{type(error).__name__}: {error}"
            os.write(writer, message.encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as output:
            message = output.read()
        assert message.startswith("CheckpointError: ") and "unreadable" in message, message
        assert str(folder / name) in message
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


BIASES = [f"model.layers.0.self_attn.{name}_proj.bias" for name in "qkvo"]
EXTRA = [
    *BIASES,
    "model.layers.3.mlp.up_proj.weight",
    "lm_head.bias",
    "model.layers.0.mlp.up_proj.weight_scale",
]
EXTRA += [
    "model.layers.0.self_attn.q_norm.weight",
    "score.weight",
    "base_model.model.x",
    "model.embed_tokens.bias",
]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"])
@pytest.mark.parametrize("name", EXTRA)
def test_a_tensor_that_nobody_reads_is_named(tmp_path: Path, architecture: str, name: str) -> None:
    model = ModelConfig(architecture, 32, 3, 4, 2, 8, 48, 50)
    tensors = write_model(tmp_path / "hf", model)
    if name in tensors:
        return  # Qwen3's q_norm is read
    save_file(tensors | {name: torch.zeros(2)}, tmp_path / "hf" / FILE)
    with pytest.raises(CheckpointError, match=rf"1 tensor\(s\), such as '{name}', have no place"):
        open_model(tmp_path / "hf")


def test_frequencies_of_old_files_are_not_needed(tmp_path: Path) -> None:
    tensors = write_model(tmp_path / "hf", SMALL)
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.zeros(4) for i in range(3)}
    save_file(tensors | frequencies, tmp_path / "hf" / FILE)
    assert (
        open_model(tmp_path / "hf").tensors.keys() == load_file(tmp_path / "hf" / FILE).keys() - frequencies
    )
