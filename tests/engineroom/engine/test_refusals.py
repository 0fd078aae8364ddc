"""An engine that does not belong here, or is not what was built, is refused before its code is loaded."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import Checkpoint, Layout, Mapping, convert
from engineroom.engine import compile as compiler
from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildError
from engineroom.engine.directory import EngineDir, EngineError, open_engine
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import Graphs
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.output import OutputError
from tests.engineroom.engine.conftest import COURSE, LIMITS

Break = Callable[[Path], object]


def manifest(**changes: object) -> Break:
    def change(folder: Path) -> None:
        found = json.loads((folder / "manifest.json").read_text())
        found["target"] |= changes
        (folder / "manifest.json").write_text(json.dumps(found))

    return change


def flip(name: str) -> Break:
    def change(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)

    return change


BREAKS: list[tuple[str, Break, str]] = [
    (
        "not an engine",
        lambda f: (f / "config.json").unlink(),
        "config.json does not exist.*engineroom build",
    ),
    ("no manifest", lambda f: (f / "manifest.json").unlink(), "manifest.json does not exist"),
    (
        "other layout",
        lambda f: (f / "config.json").write_text('{"version": "1.2.1"}'),
        "layout '1.2.1', expected",
    ),
    ("tampered code", flip("rank0.pt2"), r"rank0\.pt2 is not the file that was built.*not loaded"),
    ("tampered weights", flip("rank0_managed_weights.safetensors"), "its hash differs"),
    ("tampered tokenizer", flip("tokenizer/tokenizer.json"), "tokenizer.json is not the file"),
    ("missing code", lambda f: (f / "rank0.pt2").unlink(), "lacks rank0.pt2. Copy the whole directory"),
    ("other torch", manifest(torch="2.0.0"), "built for torch 2.0.0.*build the engine again"),
    ("other machine", manifest(machine="aarch64"), "built for machine aarch64"),
    (
        "other processor",
        manifest(isa=["amx_bf16_of_tomorrow"]),
        "processor with amx_bf16_of_tomorrow.*illegal instruction",
    ),
    (
        "for a GPU",
        manifest(device="cuda", gpu="NVIDIA H100"),
        "built for NVIDIA H100; this machine has no GPU",
    ),
]


@pytest.mark.parametrize(("break_it", "message"), [b[1:] for b in BREAKS], ids=[b[0] for b in BREAKS])
def test_refused(engine: EngineDir, tmp_path: Path, break_it: Break, message: str) -> None:
    copy = Path(shutil.copytree(engine.path, tmp_path / "copy"))
    open_engine(copy)
    break_it(copy)
    with pytest.raises(EngineError, match=f"(?s){message}"):
        Executor(copy)


def test_other_rank_count(engine: EngineDir) -> None:
    with pytest.raises(EngineError, match="built for 1 ranks, and 2 would run it"):
        open_engine(engine.path, world_size=2)


def test_what_an_interrupted_build_left(
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


def test_the_build_cache_knows_what_matters(
    engine: EngineDir, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    said: list[str] = []
    build(checkpoint.directory, tmp_path / "same", LIMITS, say=said.append)
    assert "build cache" in said[-1]
    assert (tmp_path / "same" / "rank0.pt2").read_bytes() == (engine.path / "rank0.pt2").read_bytes()


def test_who_builds_the_same_at_the_same_time_waits_for_the_first(
    engine: EngineDir, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEROOM_BUILDS", str(tmp_path / "builds"))
    begun, go, said = threading.Event(), threading.Event(), list[str]()

    def compiled(*given: object) -> dict[str, float]:
        begun.set()
        assert go.wait(60)
        shutil.copyfile(engine.path / "rank0.pt2", given[3])
        return {}

    monkeypatch.setitem(build.__globals__, "_compile", compiled)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(build, checkpoint.directory, tmp_path / "first", LIMITS)
        assert begun.wait(60)
        second = pool.submit(build, checkpoint.directory, tmp_path / "second", LIMITS, say=said.append)
        with pytest.raises(TimeoutError):
            second.result(0.5)
        go.set()
        assert first.result(60).path and second.result(60).path
    assert "build cache" in said[-1]


def test_builds_that_cannot_be(checkpoint: Checkpoint, tmp_path: Path) -> None:
    two = convert(COURSE, tmp_path / "two", layout=Layout(Mapping(2)))
    with pytest.raises(BuildError, match="has 2 ranks"):
        build(two, tmp_path / "engine")
    with pytest.raises(BuildError, match="--device cuda: this machine has no GPU"):
        build(checkpoint.directory, tmp_path / "engine", device="cuda")
    with pytest.raises(OutputError, match="is not empty"):
        build(checkpoint.directory, two, LIMITS)
    assert not list(tmp_path.glob("engine*"))


def test_refit(engine: EngineDir, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """New weights in an engine that stands: it answers as the new checkpoint does, and the old one still as before."""
    other = Path(shutil.copytree(checkpoint.directory, tmp_path / "other"))
    weights = load_file(other / "rank0.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0)
    save_file(weights, other / "rank0.safetensors")
    changed = refit(engine.path, other, tmp_path / "refitted")
    prompts, params = [[5, 6, 7]], SamplingParams(max_tokens=1)
    kv = KvCacheConfig(max_tokens=256)
    before = Executor(engine, kv).generate(prompts, params)[0][0]
    assert Executor(changed, kv).generate(prompts, params)[0][0] == (before + 1) % 4096
    assert changed.manifest["seconds"].keys() == {"refit"}


@pytest.mark.parametrize("change", ["dtype", "shape", "missing"])
def test_weights_that_the_code_was_not_made_for(engine: EngineDir, tmp_path: Path, change: str) -> None:
    """The compiled code would take them, and compute nonsense or stop the process."""
    found = load_file(engine.path / "rank0_managed_weights.safetensors")
    old = found.pop("lm_head.weight")
    if change != "missing":
        found["lm_head.weight"] = old.half() if change == "dtype" else old[:-1].contiguous()
    save_file(found, tmp_path / "weights.safetensors")
    with pytest.raises(EngineError, match=r"lm_head.weight is .*, expected \(256, 512, 16, torch.float32\)"):
        Graphs(engine).load_weights(tmp_path / "weights.safetensors")


def test_refit_with_another_model(engine: EngineDir, tmp_path: Path) -> None:
    draft = convert(COURSE.parent / "draft", tmp_path / "draft", dtype="float32")
    with pytest.raises(BuildError, match=r"differs from what was built in .*hidden_size"):
        refit(engine.path, draft, tmp_path / "refitted")
    half = convert(COURSE, tmp_path / "half", dtype="float16")
    with pytest.raises(BuildError, match="built in dtype"):
        refit(engine.path, half, tmp_path / "refitted")
    assert not list(tmp_path.glob("refitted*"))
