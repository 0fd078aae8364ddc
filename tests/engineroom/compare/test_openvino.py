"""OpenVINO GenAI really runs, in a process of its own, and generates the same tokens as our engine."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from engineroom.compare import CompareError, EngineSettings, compare, openvino
from engineroom.compare.engines import AotEngine
from engineroom.compare.openvino import OpenVinoEngine, export
from engineroom.engine.directory import EngineDir
from tests.engineroom.compare.test_compare import WORKLOADS, course_settings
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine

__all__ = ["checkpoint", "engine"]

PROMPTS = [[300, 301, 302], [7, 8, 9, 10, 11]]


@pytest.fixture(scope="module")
def openvino_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(COURSE, tmp_path_factory.mktemp("openvino") / "model", "float32")


def generate(settings: EngineSettings) -> list[list[int]]:
    return OpenVinoEngine(settings).generate(PROMPTS, 12)


@pytest.mark.timeout(400)
def test_it_takes_its_turn_and_generates_the_same_tokens(engine: EngineDir, openvino_dir: Path) -> None:
    settings = replace(course_settings(engine.path), openvino_dir=openvino_dir)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # its packages have other versions than ours
        answers = pool.submit(generate, settings).result()
    assert answers == AotEngine(settings).generate(PROMPTS, 12)
    comparison = compare(settings, WORKLOADS[:1], ["openvino"], rounds=1)
    assert comparison.rates[WORKLOADS[0]]["openvino"][0] > 0


def test_a_dtype_that_it_cannot_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompareError, match="float32 and float16, not bfloat16"):
        export(COURSE, tmp_path, "bfloat16")
    assert not list(tmp_path.iterdir())


def test_without_its_environment_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "ENVIRONMENT", tmp_path)
    with pytest.raises(CompareError, match="--openvino"):
        export(COURSE, tmp_path / "model", "float32")
