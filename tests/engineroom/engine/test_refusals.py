"""An engine that does not fit this machine, or is not what was built, is refused before its code is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch._inductor.config
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import Checkpoint, Mapping, Sharding, convert
from engineroom.engine import compile as compiler
from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildError
from engineroom.engine.directory import EngineDir, EngineError, open_engine
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ModelRunner
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.output import OutputError
from tests.engineroom.engine.conftest import COURSE, LIMITS

Damage = Callable[[Path], object]


def change_target(**changes: object) -> Damage:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["target"] |= changes
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


def flip_a_bit(name: str) -> Damage:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


DAMAGES: list[tuple[str, Damage, str]] = [
    (
        "not an engine",
        lambda folder: (folder / "config.json").unlink(),
        "config.json does not exist.*engineroom build",
    ),
    ("no manifest", lambda folder: (folder / "manifest.json").unlink(), "manifest.json does not exist"),
    (
        "other layout",
        lambda folder: (folder / "config.json").write_text('{"version": "1.2.1"}'),
        "layout '1.2.1', expected",
    ),
    ("tampered code", flip_a_bit("rank0.pt2"), r"rank0\.pt2 is not the file that was built.*not loaded"),
    ("tampered weights", flip_a_bit("rank0_managed_weights.safetensors"), "its hash differs"),
    ("tampered tokenizer", flip_a_bit("tokenizer/tokenizer.json"), "tokenizer.json is not the file"),
    (
        "missing code",
        lambda folder: (folder / "rank0.pt2").unlink(),
        "lacks rank0.pt2. Copy the whole directory",
    ),
    ("other torch", change_target(torch="2.0.0"), "built for torch 2.0.0.*build the engine again"),
    ("other machine", change_target(machine="aarch64"), "built for machine aarch64"),
    (
        "other processor",
        change_target(isa=["amx_bf16_of_tomorrow"]),
        "processor with amx_bf16_of_tomorrow.*illegal instruction",
    ),
    (
        "for a GPU",
        change_target(device="cuda", gpu="NVIDIA H100"),
        "built for NVIDIA H100; this machine has no GPU",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"),
    [(damage, message) for _, damage, message in DAMAGES],
    ids=[name for name, _, _ in DAMAGES],
)
def test_refused(engine: EngineDir, tmp_path: Path, damage: Damage, message: str) -> None:
    copy = Path(shutil.copytree(engine.path, tmp_path / "copy"))
    open_engine(copy)
    damage(copy)
    with pytest.raises(EngineError, match=f"(?s){message}"):
        Executor(copy)


def test_other_rank_count(engine: EngineDir) -> None:
    with pytest.raises(EngineError, match="built for 1 ranks, and 2 would run it"):
        open_engine(engine.path, world_size=2)


def test_an_interrupted_build_leaves_nothing_and_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("ENGINEROOM_BUILDS", str(tmp_path / "builds"))  # an empty build cache
    monkeypatch.setattr(compiler, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(checkpoint.directory, tmp_path / "engine", LIMITS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["builds"]
    (tmp_path / "engine.incomplete").mkdir()
    with pytest.raises(EngineError, match="interrupted build"):
        open_engine(tmp_path / "engine.incomplete")


def test_impossible_builds_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    two = convert(COURSE, tmp_path / "two", sharding=Sharding(Mapping(2)))
    with pytest.raises(BuildError, match="has 2 ranks"):
        build(two, tmp_path / "engine")
    with pytest.raises(BuildError, match="--device cuda: this machine has no GPU"):
        build(checkpoint.directory, tmp_path / "engine", device="cuda")
    with pytest.raises(OutputError, match="is not empty"):
        build(checkpoint.directory, two, LIMITS)
    assert not list(tmp_path.glob("engine*"))


def test_a_build_without_a_compiler_says_what_to_install(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEROOM_BUILDS", str(tmp_path / "builds"))  # an empty build cache
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(BuildError, match=r"needs a C\+\+ compiler, and none works here. Install g\+\+"),
    ):
        build(checkpoint.directory, tmp_path / "engine", LIMITS)
    assert not list(tmp_path.glob("engine*"))


def test_refit(engine: EngineDir, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The copy generates the new checkpoint's tokens, and the original engine still generates its own."""
    new_checkpoint = Path(shutil.copytree(checkpoint.directory, tmp_path / "new"))
    weights = load_file(new_checkpoint / "rank0.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0)
    save_file(weights, new_checkpoint / "rank0.safetensors")
    refitted = refit(engine.path, new_checkpoint, tmp_path / "refitted")
    prompts, params = [[5, 6, 7]], SamplingParams(max_tokens=1)
    kv_cache_config = KvCacheConfig(max_tokens=256)
    token_id = Executor(engine, kv_cache_config).generate(prompts, params)[0][0]
    assert Executor(refitted, kv_cache_config).generate(prompts, params)[0][0] == (token_id + 1) % 4096
    assert refitted.manifest["seconds"].keys() == {"refit"}


@pytest.mark.parametrize("change", ["dtype", "shape", "missing"])
def test_weights_that_do_not_fit_the_code_are_refused(engine: EngineDir, tmp_path: Path, change: str) -> None:
    """The compiled code would take them, and compute nonsense or crash the process."""
    tensors = load_file(engine.weights)
    lm_head = tensors.pop("lm_head.weight")
    if change != "missing":
        tensors["lm_head.weight"] = lm_head.half() if change == "dtype" else lm_head[:-1].contiguous()
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match=r"lm_head.weight is .*, expected \(256, 512, 16, torch.float32\)"):
        ModelRunner(engine).load_weights(tmp_path / "weights.safetensors")


def test_a_refit_with_another_model_is_refused(engine: EngineDir, tmp_path: Path) -> None:
    draft = convert(COURSE.parent / "draft", tmp_path / "draft", dtype="float32")
    with pytest.raises(BuildError, match=r"differs from the engine's model in .*hidden_size"):
        refit(engine.path, draft, tmp_path / "refitted")
    half = convert(COURSE, tmp_path / "half", dtype="float16")
    with pytest.raises(BuildError, match="differs from the engine's model in dtype"):
        refit(engine.path, half, tmp_path / "refitted")
    assert not list(tmp_path.glob("refitted*"))
