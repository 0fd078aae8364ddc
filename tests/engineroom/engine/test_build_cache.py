"""The build cache: what a package depends on, and that builds of the same package compile it once."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engineroom.checkpoint import Checkpoint
from engineroom.engine.build import build
from engineroom.engine.build_cache import PACKAGE, cache_key, fetch_or_compile
from engineroom.engine.config import Limits
from engineroom.engine.directory import EngineDir
from tests.engineroom.engine.conftest import LIMITS

PRETRAINED_CONFIG = {"architecture": "LlamaForCausalLM", "hidden_size": 64}
SMALL = Limits(max_batch_size=6, max_input_len=192, max_seq_len=256, max_num_tokens=48)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the sources that generate code."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "engine", ignore=shutil.ignore_patterns("__pycache__")))


def key(package: Path, limits: Limits = SMALL, packed: bool = True) -> str:
    return cache_key(PRETRAINED_CONFIG, limits, "cpu", packed, package)


def test_the_key_does_not_depend_on_the_folder_of_the_sources(package: Path) -> None:
    assert key(package) == key(PACKAGE)


@pytest.mark.parametrize("name", ["loras.py", "kernels/fp8.py", "kernels/arm.cpp", "kernels/tiles.h"])
def test_a_new_file_in_the_package_changes_the_key(package: Path, name: str) -> None:
    before = key(package)
    (package / name).write_text("")
    assert key(package) != before


@pytest.mark.parametrize("name", ["layers.py", "kernels/cpu_linear.h", "torch_private.py"])
def test_a_changed_file_changes_the_key(package: Path, name: str) -> None:
    before = key(package)
    (package / name).write_text((package / name).read_text() + "\n")
    assert key(package) != before


def test_the_runtime_does_not_change_the_key(package: Path) -> None:
    before = key(package)
    (package / "runtime" / "speculation.py").write_text("")
    (package / "notes.txt").write_text("")
    assert key(package) == before


def test_limits_and_the_form_of_the_weights_change_the_key() -> None:
    keys = {key(PACKAGE), key(PACKAGE, replace(SMALL, max_num_tokens=64)), key(PACKAGE, packed=False)}
    assert len(keys) == 3


def test_a_second_build_takes_the_package_from_the_cache(
    engine: EngineDir, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    lines: list[str] = []
    second_engine = build(checkpoint.directory, tmp_path / "again", LIMITS, log=lines.append)
    assert "build cache" in lines[-1]
    assert second_engine.package.read_bytes() == engine.package.read_bytes()


def test_a_build_of_the_same_engine_waits_for_the_first_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEROOM_BUILDS", str(tmp_path / "builds"))
    started, finish = threading.Event(), threading.Event()
    lines: list[str] = []

    def compile_package(path: Path) -> dict[str, float]:
        started.set()
        assert finish.wait(60)
        path.write_text("code")
        return {"compile": 1.0}

    def never(path: Path) -> dict[str, float]:
        raise AssertionError("compiled twice")

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch_or_compile, "key", tmp_path / "first", compile_package, lines.append)
        assert started.wait(60)
        second = pool.submit(fetch_or_compile, "key", tmp_path / "second", never, lines.append)
        with pytest.raises(TimeoutError):
            second.result(0.5)
        finish.set()
        assert first.result(60) == {"compile": 1.0}
        assert second.result(60) == {"cached": 0.0}
    assert (tmp_path / "second").read_text() == "code"
    assert "build cache" in lines[-1]
