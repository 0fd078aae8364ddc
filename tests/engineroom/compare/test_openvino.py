"""OpenVINO GenAI, really run: the same tokens as ours, in a process of its own, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from engineroom.compare import CompareError, Job, compare, openvino
from engineroom.compare.engines import Aot
from engineroom.compare.openvino import OpenVino, export
from engineroom.engine.directory import EngineDir
from tests.engineroom.compare.test_compare import LOADS, job
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine  # noqa: F401

PROMPTS = [[300, 301, 302], [7, 8, 9, 10, 11]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(COURSE, tmp_path_factory.mktemp("openvino") / "model", "float32")


@pytest.mark.timeout(400)
def test_it_takes_its_turn_and_says_the_same_tokens(engine: EngineDir, exported: Path) -> None:  # noqa: F811
    one = replace(job(engine.path), openvino=exported)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its packages are other versions of ours
        assert apart.submit(said, one).result() == Aot(one).run(PROMPTS, 12)
    made = compare(one, LOADS[:1], ["openvino"], rounds=1)
    assert made.rates[LOADS[0]]["openvino"][0] > 0


def said(one: Job) -> list[list[int]]:
    return OpenVino(one).run(PROMPTS, 12)


def test_what_it_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="float32 and float16, not bfloat16"):
        export(COURSE, tmp_path, "bfloat16")
    assert not list(tmp_path.iterdir())


def test_without_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "HOME", tmp_path)
    with pytest.raises(CompareError, match="--openvino"):
        export(COURSE, tmp_path / "model", "float32")
